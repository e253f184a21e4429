package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

// What is shown. The file system lies in the first half of the volume, the writer writes in the second.
const (
	rtoTarget   = 2 * time.Second
	imageMiB    = 512
	imageSize   = imageMiB << 20
	writerFirst = imageSize / e2e.StampSize
	writerSize  = 128 << 20 / e2e.StampSize
	warmUp      = 2000            // acknowledged writes before the image is copied in
	goOnFor     = 2 * time.Second // how long the writer goes on after the image is in
)

// story is the demo, step by step, and what it found.
type story struct {
	o       options
	dir     string
	cluster *e2e.Cluster
	writer  *writerProc
	began   time.Time

	tree    tree
	killed  string        // who served first
	killAt  time.Duration // when it was killed, on the clock of Monotonic
	heir    string        // who serves then
	epoch   uint64
	record  *e2e.Record
	seen    nbdclient.Stats // by the writer
	outage  time.Duration   // from the kill to the first write that the heir acknowledged
	moved   api.Failover
	differ  int64 // bytes that differed when the killed one came back
	resync  time.Duration
	onDisks int64
}

func (s *story) say(format string, args ...any) {
	fmt.Printf("%5.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// command shows a command as a person would type it.
func (s *story) command(format string, args ...any) {
	fmt.Printf("         $ %s\n", fmt.Sprintf(format, args...))
}

// admin asks the cluster something and shows question and answer.
func (s *story) admin(ctx context.Context, args ...string) error {
	out, errs, code := s.cluster.Admin(ctx, args...)
	if code != 0 {
		return fmt.Errorf("ha-admin %s: exit code %d: %s", strings.Join(args, " "), code, errs)
	}
	s.command("ha-admin %s", strings.Join(args, " "))
	for line := range strings.Lines(out) {
		fmt.Print("           ", line)
	}
	return nil
}

func (s *story) path(name string) string { return filepath.Join(s.dir, name) }

func (s *story) tell(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.startCluster, s.makeFileSystem, s.startWriter, s.copyInAndKill, s.stopWriter, s.plant, s.readBack, s.bringBack, s.compareReplicas,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) startCluster(context.Context) error {
	s.say("starting three daemons on 127.x: alpha and beta each hold a copy of a volume of 1 GiB, gamma only votes")
	for _, n := range e2e.Nodes {
		s.command("haclusterd --config cluster.hcl --node %s --insecure", n)
	}
	return s.cluster.Start()
}

func (s *story) makeFileSystem(ctx context.Context) (err error) {
	if s.tree, err = copyTree(s.o.tree, s.path("tree"), s.o.treeMiB<<20); err != nil {
		return err
	}
	s.say("making an ext4 file system of %d MiB with %d real files (%s) of %s", imageMiB, s.tree.files, mib(s.tree.bytes), s.o.tree)
	s.command("mke2fs -t ext4 -d tree ext4.img %dM", imageMiB)
	return makeImage(ctx, s.tree, s.path("ext4.img"), imageMiB)
}

func (s *story) startWriter(ctx context.Context) error {
	st, err := s.cluster.Until(ctx, "the new cluster is healthy", e2e.Healthy)
	if err != nil {
		return err
	}
	s.killed, s.epoch = st.Volumes[0].Primary, st.Volumes[0].Epoch
	s.heir = map[string]string{"alpha": "beta", "beta": "alpha"}[s.killed]
	s.say("the cluster is healthy: %s serves the volume, %s mirrors every write before it is acknowledged", s.killed, s.heir)
	s.writer, err = startWriter(writerOptions{record: s.path("record"), uris: strings.Join(s.cluster.URIs(), ","), first: writerFirst, blocks: writerSize})
	if err != nil {
		return err
	}
	s.say("a program of its own now writes to the second half of the volume and notes each acknowledged write")
	_, err = s.watchRecord(ctx, func(r *e2e.Record) bool { return r.Writes >= warmUp })
	return err
}

// copyInAndKill copies the file system in; the primary dies when half of it is there.
func (s *story) copyInAndKill(ctx context.Context) error {
	dev, err := nbdclient.Open(ctx, s.cluster.URIs(), nbdclient.ReconnectConfig{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer dev.Close()
	s.say("copying the file system in over NBD, as onto a disk of the network")
	written, err := copyIn(ctx, dev, s.path("ext4.img"), imageSize, func() error {
		pid := s.cluster.Pid(s.killed)
		s.killAt = e2e.Monotonic()
		s.cluster.Kill(s.killed)
		s.say("half of it is in: KILLED %s, the primary, with writes in flight", s.killed)
		s.command("kill -9 %d", pid)
		return nil
	})
	if err != nil {
		return err
	}
	if dev.Stats().Reconnects == 0 {
		return errors.New("the copy had ended before the kill: this showed nothing, use a larger -tree-mib")
	}
	s.say("the whole file system is in (%s written): the copy and the writer went on by themselves at %s", mib(written), s.heir)
	return nil
}

// watchRecord reads the record of the running writer again and again until it is as wanted.
func (s *story) watchRecord(ctx context.Context, want func(*e2e.Record) bool) (*e2e.Record, error) {
	for {
		r, err := e2e.LoadRecord(s.path("record"))
		if err == nil && want(r) {
			return r, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the writer does not get its answers: %w", ctx.Err())
		case <-s.writer.done:
			return nil, fmt.Errorf("the writer ended by itself (%v): %s", s.writer.err, s.writer.errs.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *story) stopWriter(ctx context.Context) error {
	r, err := s.watchRecord(ctx, func(r *e2e.Record) bool { _, ok := r.SwitchAfter(s.killAt); return ok })
	if err != nil {
		return err
	}
	w, _ := r.SwitchAfter(s.killAt)
	s.outage = w.At - s.killAt
	if !strings.Contains(w.Server, s.heir) {
		return fmt.Errorf("after the death of %s the writer was answered by %s", s.killed, w.Server)
	}
	select { // a while of normal work under the new primary
	case <-time.After(goOnFor):
	case <-s.writer.done:
	case <-ctx.Done():
	}
	if s.seen, err = s.writer.finish(ctx); err != nil {
		return err
	}
	if s.record, err = e2e.LoadRecord(s.path("record")); err != nil {
		return err
	}
	if s.moved, err = s.cluster.FailoverTo(ctx, s.epoch+1); err != nil {
		return err
	}
	if err := s.judgeOutage(); err != nil {
		return err
	}
	s.say("the writer has ended: %d writes were acknowledged, it saw no error", s.record.Writes)
	return s.admin(ctx, "status")
}

func (s *story) judgeOutage() error {
	switch {
	case len(s.seen.Errors) > 0 || s.seen.Unanswered > 0:
		return fmt.Errorf("the writer saw errors across the failover: %+v", s.seen)
	case s.moved.From != s.killed || s.moved.To != s.heir:
		return fmt.Errorf("the cluster says that the volume moved from %s to %s, it was from %s to %s", s.moved.From, s.moved.To, s.killed, s.heir)
	case s.outage > rtoTarget:
		return fmt.Errorf("the writer waited %d ms for the new primary, the target is %v: %+v", s.outage.Milliseconds(), rtoTarget, s.moved.Stages)
	}
	return nil
}

// plant undoes an acknowledged write, when asked to, so that everybody sees the check fail.
func (s *story) plant(ctx context.Context) error {
	if !s.o.plant {
		return nil
	}
	block, seq, ok := s.record.AnyAcked()
	if !ok {
		return errors.New("no write was acknowledged: nothing can be planted")
	}
	dev, err := nbdclient.Dial(ctx, s.cluster.URI(s.heir))
	if err != nil {
		return err
	}
	defer dev.Close()
	s.say("PLANTED: block %d is zeroed, which held the acknowledged write %d", block, seq)
	return dev.Zero(blockdev.Range{Off: block * e2e.StampSize, Len: e2e.StampSize}, false)
}

// readBack proves, over a connection that knows nothing of the past, that all is there.
func (s *story) readBack(ctx context.Context) error {
	dev, err := nbdclient.Dial(ctx, s.cluster.URI(s.heir))
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := s.judge(dev, "the volume at "+s.heir); err != nil {
		return err
	}
	s.say("read back over a new connection: each of the %d blocks holds its last acknowledged write", s.record.Size())
	if err := copyOut(ctx, dev, s.path("ext4.img"), s.path("out.img"), imageSize); err != nil {
		return err
	}
	if err := checkImage(ctx, s.tree, s.path("out.img"), s.path("out")); err != nil {
		return err
	}
	s.command("e2fsck -f -n out.img; debugfs -R 'rdump / out' out.img; diff -r tree out")
	s.say("the file system was copied out: e2fsck finds no fault, all %d files are the same", s.tree.files)
	return nil
}

// judge compares what a device holds with the writer's record.
func (s *story) judge(dev io.ReaderAt, where string) error {
	lost, err := s.record.Check(dev)
	if err != nil {
		return err
	}
	if len(lost) == 0 {
		return nil
	}
	var b strings.Builder
	for _, l := range lost[:min(len(lost), 10)] {
		fmt.Fprintf(&b, "\n  %v", l)
	}
	return fmt.Errorf("LOST: %d of the %d blocks on %s do not hold what was acknowledged:%s", len(lost), s.record.Size(), where, b.String())
}

// bringBack starts the killed daemon again and waits until it has caught up.
func (s *story) bringBack(ctx context.Context) error {
	blocks, err := e2e.Differing(s.cluster.Disk("alpha"), s.cluster.Disk("beta"))
	if err != nil {
		return err
	}
	s.differ = int64(len(blocks)) * e2e.StampSize
	s.say("starting %s again: %s of its copy are out of date", s.killed, mib(s.differ))
	s.command("haclusterd --config cluster.hcl --node %s --insecure", s.killed)
	start := time.Now()
	if err := s.cluster.Start(s.killed); err != nil {
		return err
	}
	st, err := s.cluster.Until(ctx, s.killed+" has caught up", e2e.Healthy)
	if err != nil {
		return err
	}
	s.resync = time.Since(start)
	if v := st.Volumes[0]; v.Primary != s.heir || v.Epoch != s.epoch+1 {
		return fmt.Errorf("the volume moved while %s caught up: it is at %s in epoch %d", s.killed, v.Primary, v.Epoch)
	}
	s.say("%s has caught up: the cluster is healthy again", s.killed)
	return s.admin(ctx, "status")
}

// compareReplicas stops all daemons in order and compares the two copies as files.
func (s *story) compareReplicas(context.Context) error {
	s.command("kill -TERM ...; cmp alpha.img beta.img")
	if err := s.cluster.StopAndCompare(s.heir); err != nil {
		return err
	}
	for _, n := range []string{"alpha", "beta"} {
		if err := s.judgeFile(n); err != nil {
			return err
		}
	}
	s.say("all daemons stopped in order: the two copies are the same, byte by byte")
	return nil
}

func (s *story) judgeFile(node string) error {
	f, err := os.Open(s.cluster.Disk(node))
	if err != nil {
		return err
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	s.onDisks = st.Blocks * 512
	return s.judge(f, "the disk of "+node)
}

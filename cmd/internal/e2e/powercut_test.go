package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/lab/disk"
)

// powered is a cluster whose nodes have everything, replica, metadata and Raft log, on disks that lose power, and a boot
// id that changes with it.
type powered struct {
	*rig
	disks map[string]*disk.Disk
	bites map[string]int64 // of the faults in force, by node and kind, before they were
}

var hadiskDir string // removed by TestMain

var hadisk = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hadisk")
	if err != nil {
		return "", err
	}
	hadiskDir = dir
	if out, err := exec.Command("go", "build", "-o", dir+"/", "hacluster/cmd/internal/lab/disk/hadisk").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hadisk: %w: %s", err, out)
	}
	return filepath.Join(dir, "hadisk"), nil
})

// power mounts the disks and starts no node.
func power(t *testing.T, cfg Config) *powered {
	t.Helper()
	if err := disk.Supported(); err != nil {
		t.Skipf("disks that lose power take root and FUSE: %v", err)
	}
	cfg.BootIDs, cfg.Disks = true, "${node.name}"
	if cfg.Size == "" {
		cfg.Size = fmt.Sprintf("%dMiB", cutSmall>>20)
	}
	p := &powered{rig: newRig(t, cfg), disks: map[string]*disk.Disk{}, bites: map[string]int64{}}
	program, err := hadisk()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	for _, n := range Nodes {
		d, err := disk.Start(t.Context(), disk.Config{Bin: program, Dir: filepath.Join(p.cfg.Dir, n+".disk"), Mount: p.DataDir(n)})
		if err != nil {
			t.Fatal(err)
		}
		p.disks[n] = d
		p.boot(n)
	}
	return p
}

// end lets every disk go before it ends the nodes: one whose disk hangs does not end.
func (p *powered) end() {
	for _, d := range p.disks {
		_ = d.Go()
	}
	p.Close()
	for _, d := range p.disks {
		if err := d.Stop(); err != nil {
			p.t.Error(err)
		}
	}
}

// poweredUp is a healthy one.
func poweredUp(t *testing.T, cfg Config) *powered {
	t.Helper()
	p := power(t, cfg)
	p.start()
	p.until("the volume is healthy", Healthy)
	return p
}

// boot gives a node the boot id of its next start.
func (p *powered) boot(node string) {
	p.t.Helper()
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x\n", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	if err := os.WriteFile(p.BootID(node), []byte(id), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// cut takes the power from nodes, all at once, and returns what that cost in unflushed writes.
func (p *powered) cut(mode disk.Mode, seed uint64, nodes ...string) (lost int) {
	p.t.Helper()
	p.signal(syscall.SIGKILL, nodes...)
	for _, n := range nodes {
		c, err := p.disks[n].PowerCut(mode, seed)
		if err != nil {
			p.t.Fatalf("cut the power of %s: %v", n, err)
		}
		lost += c.LostWrites + c.LostNames
	}
	p.Kill(nodes...) // waits
	for _, n := range nodes {
		p.boot(n)
	}
	return lost
}

var ways = []disk.Mode{disk.Drop, disk.Random, disk.Torn}

// faults.md K110: the primary, then the standby, lose power under load: nothing acknowledged is lost, whether flushed or
// not, and the replicas become equal again.
func TestK110PowerCutOfOneNode(t *testing.T) {
	p := poweredUp(t, Config{})
	l := p.load()
	lost := 0
	for i, mode := range ways {
		for _, standby := range sides(i) {
			l.more(50)
			victim, _, _ := p.struck(blow{what: fmt.Sprint(mode, " power cut"), standby: standby,
				strike: func(node string) { lost += p.cut(mode, uint64(i), node) },
				undo:   func(node string) { p.start(node); l = l.anew() }})
			l.more(50)
			p.start(victim)
			p.until("healed", Healthy)
		}
	}
	if lost == 0 {
		t.Error("no power cut took anything back: this proves nothing")
	}
	l.stop()
	p.same()
}

// faults.md K110: the witness loses power, with its vote and its log: nothing happens, and it comes back.
func TestK110PowerCutOfTheWitness(t *testing.T) {
	p := poweredUp(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	l := p.load()
	before := p.vol()
	for i, mode := range ways {
		p.cut(mode, uint64(i), "gamma")
		l.more(100)
		p.start("gamma")
		p.until("the witness is back", func(s *apiStatus) bool { return s.Quorum && s.Nodes[2].State == "alive" })
	}
	if v := p.vol(); v.Epoch != before.Epoch {
		t.Errorf("power cuts of the witness moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
	}
	l.stop()
	p.same()
}

// flushing writes over one connection until it breaks, and knows what has to survive.
type flushing struct {
	rec  *Flushed
	acks atomic.Int64
	done chan error
}

// writeFlushed begins a load with flushes and FUA on blocks of its own, by one worker, until the connection breaks.
func (p *powered) writeFlushed(rec *Flushed, round uint64) *flushing {
	f := &flushing{rec: rec, done: make(chan error, 1)}
	c := p.direct(p.vol().Primary)
	go func() { f.done <- f.run(c, round) }()
	return f
}

// writeAtLeast begins one and waits for n acknowledgements. A busy machine may move the role meanwhile: that breaks the
// connection, and the next one goes on.
func (p *powered) writeAtLeast(rec *Flushed, round uint64, n int64) *flushing {
	p.t.Helper()
	ctx, cancel := p.within()
	defer cancel()
	for try := uint64(0); ; try++ {
		f := p.writeFlushed(rec, round<<8+try)
		err := f.until(ctx, n)
		if err == nil {
			return f
		}
		if ctx.Err() != nil || try == 20 {
			p.t.Fatal(err)
		}
		if err := <-f.done; err != nil {
			p.t.Fatal(err)
		}
		p.until("healthy, to be written to", Healthy)
	}
}

func (f *flushing) run(c *nbdclient.Client, round uint64) error {
	buf := make([]byte, longestWrite*StampSize)
	for i := uint64(0); ; i++ {
		seq := round<<32 | i + 1
		block, count := int64(i*7%509)*longestWrite, int64(1+i%longestWrite)
		b := buf[:count*StampSize]
		for k := range count {
			Stamp(b[k*StampSize:][:StampSize], block+k, seq)
		}
		f.rec.Begin(seq, block, count)
		send, fua := c.WriteAt, i%13 == 5
		if fua {
			send = c.WriteFUA
		}
		if _, err := send(b, block*StampSize); err != nil {
			return nil // the connection broke, as is wanted
		}
		if err := f.rec.Acked(seq, fua); err != nil {
			return err
		}
		f.acks.Add(1)
		if i%37 == 36 {
			mark := f.rec.Mark()
			if c.Flush() != nil {
				return nil
			}
			f.rec.Flush(mark)
		}
	}
}

func (f *flushing) until(ctx context.Context, n int64) error {
	for f.acks.Load() < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d writes were acknowledged: %w", f.acks.Load(), n, ctx.Err())
		case err := <-f.done:
			f.done <- err
			return fmt.Errorf("the load ended after %d writes: %v", f.acks.Load(), err)
		default:
		}
	}
	return nil
}

// faults.md K111, R20: all three lose power at once, under load, and come back in any order: what was acknowledged and
// flushed is there, and the replicas become equal.
func TestK111PowerCutOfAllAtOnce(t *testing.T) {
	p := poweredUp(t, Config{})
	rec := NewFlushed()
	taken, gone := 0, 0
	for i, order := range some(t, 3, orders...) {
		f := p.writeAtLeast(rec, uint64(i+1), 150)
		taken += p.cut(ways[i%3], uint64(i), Nodes...)
		if err := <-f.done; err != nil {
			t.Fatal(err)
		}
		rec.PowerLost()
		p.start(order...)
		s := p.until("healthy by itself", Healthy)
		lost, g, err := rec.CheckFlushed(p.direct(s.Volumes[0].Primary))
		if err != nil {
			t.Fatal(err)
		}
		if len(lost) > 0 {
			t.Fatalf("after cut %d (%s): %d blocks are lost or wrong, the first: %v", i, ways[i%3], len(lost), lost[0])
		}
		gone += g
	}
	if taken == 0 || rec.Survivors == 0 {
		t.Errorf("%d changes were taken back, %d blocks had to survive: this proves nothing", taken, rec.Survivors)
	}
	t.Logf("%d changes taken back, %d blocks had to survive, %d blocks lost writes that were never flushed", taken, rec.Survivors, gone)
	p.same()
}

// faults.md D96: the disk of one node answers flushes without making anything durable, and the node loses power: the
// other has everything, and the replicas become equal.
func TestD96LyingFlushAndPowerCutOfThatNode(t *testing.T) {
	p := poweredUp(t, Config{})
	l := p.load()
	lie := disk.Fault{Kind: disk.Lie, Glob: backing}
	for i, mode := range some(t, 2, ways...) {
		for _, standby := range sides(i) {
			victim := p.until("healthy before the lie", Healthy).Volumes[0].Primary
			if standby {
				victim = other(victim)
			}
			p.strike(victim, lie)
			l.more(300)
			p.bitten(victim, lie)
			p.struck(blow{what: fmt.Sprint(mode, " power cut"), node: victim,
				strike: func(node string) { p.cut(mode, uint64(i), node) },
				undo: func(node string) {
					p.start(node)
					l = l.anew()
					p.until("healthy before the next lie", Healthy)
					p.strike(node, lie)
					l.more(300)
					p.bitten(node, lie)
				}})
			p.start(victim)
			p.until("healed", Healthy)
		}
	}
	l.stop()
	p.same()
}

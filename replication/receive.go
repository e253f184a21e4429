package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/resync"
	"hacluster/replication/role"
	"hacluster/replication/standby"
	"hacluster/replication/wire"
)

// session is one stream that this replica receives as a standby.
type session struct {
	r      *Replica
	link   *link.Session
	epoch  cluster.Epoch
	stream uint64
	box    *link.ReplyBox

	silent  atomic.Bool // nothing is acknowledged any more
	refusal sync.Once   // one refusal ends a stream
	refused atomic.Bool // a refusal is in the box
	feed    atomic.Pointer[link.Feed]
}

// helloWait bounds how long a greeting waits for older work to end on the device before the primary has to try again.
const helloWait = 500 * time.Millisecond

// Replicate takes a primary's stream in until it ends. It returns when the stream is over; what was taken from it may
// still be on its way to the device, and no other stream is answered before that has ended (R2).
func (r *Replica) Replicate(ctx context.Context, ls *link.Session) error {
	s := &session{r: r, link: ls, epoch: cluster.Epoch(ls.Hello().Epoch), stream: ls.Hello().Stream, box: link.NewReplyBox(ls)}
	failpoint.Hit(failpoint.StandbyGreet)
	reply := r.greet(ctx, s)
	failpoint.Hit(failpoint.StandbyGreeted)
	if reply.Code != wire.Accepted {
		return ls.Reply(reply)
	}
	defer r.forget(s)
	if err := ls.Reply(reply); err != nil {
		return err
	}
	r.log.Info("standby of a primary", "primary", ls.Hello().Primary, "epoch", s.epoch, "stream", s.stream)
	var replies sync.WaitGroup
	replies.Go(func() {
		if s.box.Run(ctx) != nil {
			ls.Close()
		}
	})
	err := s.receive(ctx)
	s.sayWhy()
	s.lastWord(ctx)
	ls.Close()
	replies.Wait()
	return err
}

// forget closes the stream towards the receiver.
func (r *Replica) forget(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == s {
		r.session = nil // nobody asks for a feed any more
		r.seen.Clear()
		r.hole.Clear()
		r.recv.Close(s.stream)
		if r.regs != nil {
			r.regs.Abort()
		}
	}
	if feed := s.feed.Load(); feed != nil {
		feed.Close()
	}
	r.receiving--
	r.changeLocked()
	if r.spoiltLocked() {
		r.wake() // Run opens the backing anew when no stream is left
	}
}

// lastWord waits until a refusal is on its way: the primary drops us for it, or counts it (R21, R23). A primary that
// does not read is not waited for.
func (s *session) lastWord(ctx context.Context) {
	if !s.refused.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	s.box.Drain(ctx)
}

// greet answers a Hello: the pure receiver judges it, we store what it wants stored and wait for what it waits for.
func (r *Replica) greet(ctx context.Context, s *session) wire.HelloReply {
	reply := wire.HelloReply{Node: r.cfg.Node, Boot: r.cfg.Boot, Attachment: r.cfg.Incarnation.Attachment, Process: r.cfg.Process}
	h := s.link.Hello()
	if code, text := r.foreign(h); code != wire.Accepted {
		reply.Code, reply.Text = code, text
		return reply
	}
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	for {
		code, store, changed := r.judge(s, &reply)
		switch {
		case store:
			if !r.storeEpoch(cluster.Epoch(h.Epoch)) {
				reply.Code, reply.Text = wire.RefusedFailed, "the epoch cannot be stored"
				return reply
			}
			continue
		case changed == nil:
			if code == wire.RefusedOtherPrimary {
				r.alarm(fmt.Sprintf("%s refused a stream of process %d of %s in epoch %d, which another process or node leads", r.cfg.Node, h.Process, h.Primary, h.Epoch))
			}
			reply.Code = code
			return reply
		}
		select {
		case <-changed:
		case <-ctx.Done():
			reply.Code = code
			if code == wire.RefusedNotReady {
				reply.Text = "older operations are still on the device, or the membership is being confirmed"
			}
			return reply
		}
	}
}

// foreign refuses what is not meant for this replica.
func (r *Replica) foreign(h wire.Hello) (wire.Refusal, string) {
	switch {
	case h.Cluster != r.cfg.ClusterID:
		return wire.RefusedCluster, fmt.Sprintf("this is cluster %v", r.cfg.ClusterID)
	case h.Target != r.cfg.Node:
		return wire.RefusedTarget, fmt.Sprintf("this is node %s", r.cfg.Node)
	case h.Volume != r.cfg.VolumeID:
		return wire.RefusedVolume, fmt.Sprintf("volume %s has id %v here", r.cfg.Volume.Name, r.cfg.VolumeID)
	case h.Size != r.cfg.Volume.Size:
		return wire.RefusedSize, fmt.Sprintf("%d bytes here, %d there", r.cfg.Volume.Size, h.Size)
	case h.BlockSize != blockdev.BlockSize:
		return wire.RefusedBlockSize, fmt.Sprintf("blocks of %d bytes here, %d there", blockdev.BlockSize, h.BlockSize)
	case h.Generation != 0:
		return wire.RefusedGeneration, fmt.Sprintf("generation 0 here, %d there", h.Generation)
	}
	return wire.Accepted, ""
}

func (r *Replica) judge(s *session, reply *wire.HelloReply) (code wire.Refusal, store bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reply.Epoch = uint64(max(r.recv.Epoch(), r.applied.Epoch, r.vol.Epoch))
	if r.problem != "" || r.super == nil || r.dev.Stalled() {
		reply.Text = r.problem
		return wire.RefusedFailed, false, nil
	}
	h := s.link.Hello()
	busy := r.draining
	if r.tenure != nil {
		busy++ // still primary of an older epoch: Run ends that first
	}
	if r.spoiltLocked() {
		busy++ // the backing is opened anew first: Run does, when the last stream is gone
	}
	if r.unnoted > 0 || !role.MayAnswer(r.factsLocked()) {
		return wire.RefusedNotReady, false, r.watchLocked()
	}
	if s.epoch == r.vol.Epoch {
		if reply.Text = r.awaitsLocked(); reply.Text != "" {
			return wire.RefusedNotReady, false, nil
		}
	}
	switch r.recv.Hello(&r.applied, standby.Hello{Epoch: s.epoch, Primary: h.Primary, Process: h.Process, Stream: s.stream}, busy) {
	case standby.Store:
		return 0, true, nil
	case standby.Wait:
		r.supersedeLocked(nil)
		r.wake()
		return wire.RefusedNotReady, false, r.watchLocked()
	case standby.RefuseOlder:
		return wire.RefusedOlderEpoch, false, nil
	case standby.RefuseNewer:
		return wire.RefusedNewerEpoch, false, r.watchLocked() // not believed; our own log may show it at any moment
	case standby.RefuseOther:
		return wire.RefusedOtherPrimary, false, nil
	}
	r.supersedeLocked(s)
	r.receiving++
	if _, m, ok := r.slot(h.Primary); ok {
		reply.Promised, reply.Clearing = r.promisedMost(), m.Number.Settled
	}
	reply.LastSeq = r.recv.LastNum()
	if r.recv.Inconsistent() {
		reply.Flags |= wire.ReplicaInconsistent
	}
	if r.super.Failed() {
		reply.Flags |= wire.ReplicaFailed
	}
	if r.vol.IsHeld(r.cfg.Node) {
		reply.Flags |= wire.ReplicaKeeps
	}
	return wire.Accepted, false, nil
}

// supersedeLocked closes the stream that a newer one replaces.
func (r *Replica) supersedeLocked(s *session) {
	if old := r.session; old != nil && old != s {
		old.link.Close()
	}
	if r.session != s {
		r.seen.Clear()
		r.hole.Clear()
	}
	r.session = s
}

func (s *session) receive(ctx context.Context) error {
	// The mark of a clean stop goes before the first write can come (R25).
	if err := s.r.super.SetClean(nil); err != nil {
		s.r.unusable(fmt.Sprintf("the clean-stop mark cannot be removed: %v", err))
		return err
	}
	if err := s.r.takeUp(); err != nil {
		return err
	}
	for {
		if !s.link.Buffered() {
			s.box.Flush() // one message for the acknowledgements of all that a read brought
		}
		b, err := s.link.Recv()
		if err != nil {
			if errors.Is(err, wire.ErrChecksum) {
				s.refuse(err) // a compressed block that was changed on its way
			} else if !errors.Is(err, link.ErrClosed) && !errors.Is(err, link.ErrEnded) {
				s.silent.Store(true)
				s.refuseWith(wire.BadFrame, err)
			}
			return err
		}
		err = s.take(ctx, b)
		b.Free()
		if err != nil {
			s.refuse(err)
			return err
		}
	}
}

// refuse tells the primary why nothing more is taken from this stream.
func (s *session) refuse(err error) {
	var gap *standby.GapError
	switch {
	case errors.Is(err, standby.ErrStale), errors.Is(err, context.Canceled), errors.Is(err, errAwaits):
	case errors.Is(err, wire.ErrChecksum):
		s.r.meter.sums.Add(1)
		s.refuseWith(wire.BadChecksum, err)
	case errors.As(err, &gap):
		s.refuseWith(wire.BadOrder, err)
	default:
		s.refuseWith(wire.BadFrame, err)
	}
}

// refuseWith sends a refusal, once. What was acknowledged stays so; what comes after is the caller's to hold back.
func (s *session) refuseWith(code wire.Code, err error) {
	s.refusal.Do(func() {
		s.r.log.Warn("stream refused", "primary", s.link.Hello().Primary, "epoch", s.epoch, "code", code.String(), "error", err)
		s.refused.Store(true)
		if s.box.Put(wire.Reply{Kind: wire.Nack, Seq: 1, Code: code, Text: err.Error()}) != nil {
			s.refused.Store(false)
			s.link.Close()
		}
		s.box.Flush()
	})
}

// overLocked refuses what is left of a stream that another one has replaced. The Receiver knows streams by their number,
// which is anew in each epoch: a reader that was kept from running meanwhile must not go on in a namesake of its own.
func (s *session) overLocked() error {
	if s.r.session != s {
		return standby.ErrStale
	}
	return nil
}

// take handles one message, frame by frame.
func (s *session) take(ctx context.Context, b *link.Batch) error {
	for i := range b.Frames {
		f := &b.Frames[i]
		switch f.Kind {
		case wire.Begin:
			s.r.mu.Lock()
			err := s.overLocked()
			if err == nil {
				err = s.r.recv.Begin(s.stream, f.ID, f.Flags&wire.Resync != 0)
			}
			s.r.mu.Unlock()
			if err != nil {
				return err
			}
		case wire.Ping:
			if err := s.box.Put(wire.Reply{Kind: wire.Pong, ID: f.ID}); err != nil {
				return err
			}
		case wire.Marks:
			if err := s.answerMarks(f.ID); err != nil {
				return err
			}
		case wire.Promise:
			if err := s.promise(f); err != nil {
				return err
			}
		case wire.Settled:
			s.settled(f.ID)
		case wire.Digest:
			s.digest(ctx, b, f)
		case wire.Read:
			if f.ID&wire.Asked != 0 {
				s.asked(f.ID, f.Range)
			} else {
				s.read(ctx, f.ID, f.Range)
			}
		default:
			if err := s.entry(ctx, b, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// digest answers a digest request beside the stream. The primary asks for few at a time; more, of streams that have ended, wait here.
// One in order waits for what it overlaps as a write does, and is waited for.
func (s *session) digest(ctx context.Context, b *link.Batch, f *wire.Frame) {
	r := s.r
	s.box.Flush() // what is done may be told meanwhile
	select {
	case r.digests <- struct{}{}:
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	r.digesting++
	if f.Flags&wire.Ordered != 0 {
		e := newEntry(s, b, f)
		ready := r.queue.Admit(&e.Item)
		r.mu.Unlock()
		if ready {
			r.work.do(e)
		}
		return
	}
	digest, ahead := digester(f.Flags), blockdev.Range{}
	if f.Flags&wire.FromDisk == 0 && s.overLocked() == nil {
		digest = r.digestLocked(f)
		if f.Flags&wire.Ahead != 0 {
			ahead = r.aheadLocked(f.Range)
		}
	}
	r.mu.Unlock()
	id, at := f.ID, f.Range
	r.work.do(jobFunc(func() {
		r.allocate(ahead)
		s.answerDigest(id, at, digest)
	}))
}

// aheadLocked is what space is to be taken for before a resync writes it, of which at is being compared: nothing but a hole.
func (r *Replica) aheadLocked(at blockdev.Range) blockdev.Range {
	if w := resync.Ahead(at, r.cfg.Volume.Size); r.hole.Has(w) {
		return w
	}
	return blockdev.Range{}
}

// allocate takes space ahead. It is no more than a help: where there is none, the write says so.
func (r *Replica) allocate(at blockdev.Range) {
	if at.Len == 0 {
		return
	}
	if err := r.dev.Allocate(at); err != nil {
		r.log.Debug("space is not taken ahead", "range", at.String(), "error", err)
	}
}

// digestLocked is how digests for a resync, or of a member that is not settled, are made: without the disk, where it is known to
// have a hole; else what is read may be kept.
func (r *Replica) digestLocked(f *wire.Frame) func(blockdev.Device, blockdev.Range) ([]byte, error) {
	if r.hole.Covers(f.Range) {
		return ofHole(summer(f.Flags))
	}
	digest := digester(f.Flags)
	if r.recv.MayLog() && r.cfg.keeps() {
		if seen := r.seen.Begin(f.Range, &r.queue); seen != nil {
			digest = r.digestSeen(seen, summer(f.Flags))
		}
	}
	if look, ok := r.hole.Begin(f.Range, r.cfg.Volume.Size, &r.queue); ok {
		return r.lookFirst(look, digest)
	}
	return digest
}

// lookFirst asks how far the hole goes that may begin there, for what is compared next.
func (r *Replica) lookFirst(look uint64, digest func(blockdev.Device, blockdev.Range) ([]byte, error)) func(blockdev.Device, blockdev.Range) ([]byte, error) {
	return func(dev blockdev.Device, at blockdev.Range) ([]byte, error) {
		found, hole := link.ExtentAt(dev, blockdev.Range{Off: at.Off, Len: dev.Size() - at.Off})
		r.mu.Lock()
		r.hole.Found(look, found, hole)
		r.mu.Unlock()
		return digest(dev, at)
	}
}

// ofHole makes digests of what is known to hold zeroes.
func ofHole(sum link.Sum) func(blockdev.Device, blockdev.Range) ([]byte, error) {
	return func(_ blockdev.Device, at blockdev.Range) ([]byte, error) { return link.OfHole(at, sum), nil }
}

// digestSeen makes digests of what may be overwritten soon, and keeps what it read.
func (r *Replica) digestSeen(seen *standby.Seen, sum link.Sum) func(blockdev.Device, blockdev.Range) ([]byte, error) {
	return func(dev blockdev.Device, at blockdev.Range) ([]byte, error) {
		sums, buf, err := link.DigestKept(dev, at, sum)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen.Read(seen, buf)
		return sums, err
	}
}

func digester(f wire.Flags) func(blockdev.Device, blockdev.Range) ([]byte, error) {
	switch {
	case f&wire.FromDisk != 0:
		return link.DigestDisk
	case f&wire.Sums != 0:
		return link.Sums
	}
	return link.Digest
}

func summer(f wire.Flags) link.Sum {
	if f&wire.Sums != 0 {
		return link.AppendSums
	}
	return link.AppendDigests
}

func (s *session) answerDigest(id uint64, at blockdev.Range, digest func(blockdev.Device, blockdev.Range) ([]byte, error)) {
	r := s.r
	reply := wire.Reply{Kind: wire.DigestReply, ID: id, Range: at}
	sums, err := digest(r.dev, at)
	if err != nil {
		reply.Code, reply.Text = wire.ReadFailed, err.Error()
	}
	reply.Digests = sums
	if s.box.Put(reply) != nil {
		s.link.Close()
	}
	s.box.Flush()
	r.digested()
}

// digested ends what holds a token of digests.
func (r *Replica) digested() {
	<-r.digests
	r.lookedAt()
}

// lookedAt counts off what reads the backing for the primary.
func (r *Replica) lookedAt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.digesting--
	r.changeLocked()
	if r.spoiltLocked() {
		r.wake() // Run opens the backing anew when nothing is on it
	}
}

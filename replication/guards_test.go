package replication

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/primary"
	"hacluster/replication/wire"
)

// R2: our own log shows the next primary, and its stream comes before Run has ended the tenure that was: the epoch is
// neither stored nor answered while that may still write.
func TestStreamOfTheNextPrimaryWaitsForTheEndOfTheTenure(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	a.serving()
	a.connected("b")
	r := a.get()
	r.mu.Lock()
	next := r.applied.Clone() // as between the two halves of Applied
	next.Epoch++
	next.Primary, next.Process = "b", b.process
	r.applied = next
	r.mu.Unlock()
	s, reply, err := b.dial(t.Context(), a, wire.Hello{Cluster: wire.ID{15: 1}, Volume: wire.ID{15: 7}, VolumeName: "v", Size: volumeSize,
		BlockSize: blockdev.BlockSize, Epoch: uint64(next.Epoch), Primary: "b", Process: b.process, Stream: 1, Target: "a"})
	if s != nil {
		s.Close()
	}
	var no *link.RefusedError
	if !errors.As(err, &no) || reply.Code != wire.RefusedNotReady {
		t.Errorf("answered %v (%v) while the tenure lasts", reply.Code, err)
	}
	if a.super.Epoch() >= next.Epoch {
		t.Error("the epoch is stored while the tenure lasts")
	}
}

// primaryByHand greets a node's replica as its primary, node a, would with a stream that a itself never reaches.
func (l *lab) primaryByHand(to *labNode) *link.Sender {
	l.t.Helper()
	v := l.volume()
	s, _, err := l.nodes["a"].dial(l.t.Context(), to, wire.Hello{Cluster: wire.ID{15: 1}, Volume: wire.ID{15: 7}, VolumeName: "v", Size: volumeSize,
		BlockSize: blockdev.BlockSize, Epoch: uint64(v.Epoch), Primary: "a", Process: 1, Stream: 1000, Target: to.name})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(s.Close)
	return s
}

// R23: while the failure of one write is being noted, an older one returns: it is not acknowledged either. A primary that
// heard of it, and nothing of the failure, might complete what a power loss then takes.
func TestNothingIsAcknowledgedWhileAFailureIsBeingNoted(t *testing.T) {
	l := formed(t, labConfig{}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	a.serving()
	a.connected("b")
	a.expire()
	noting, release := b.super.holdFailure()
	slow := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Range: blockdev.Range{Len: 4096}, Times: 1, Stall: true})
	b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Range: blockdev.Range{Off: 8192, Len: 4096}, Times: 1, Err: errFault})
	one, two := writeReq(0, pattern(4096, 1)), writeReq(8192, pattern(4096, 2))
	frame := func(seq uint64, q *blockdev.Request) wire.Frame {
		return wire.Frame{Kind: wire.Write, Seq: seq, Range: q.Range, Buf: q.Buf, Sum: q.Sum}
	}
	s := l.primaryByHand(b)
	if err := s.Send([]wire.Frame{{Kind: wire.Begin, ID: 1}, frame(1, one), frame(2, two)}); err != nil {
		t.Fatal(err)
	}
	<-noting
	b.super.intercept(nil)
	l.await("the older write to be under way", func() bool { return slow.Waiting() == 1 })
	slow.Release()
	l.await("it to have returned", func() bool { return b.received() == 1 && b.working() == 1 })
	if err := s.Send([]wire.Frame{{Kind: wire.Ping, ID: 7}}); err != nil {
		t.Fatal(err)
	}
	replies, err := s.Recv()
	if err != nil || len(replies) != 1 || replies[0].Kind != wire.Pong {
		t.Errorf("%+v, %v: an answer to the ping alone is wanted", replies, err)
	}
	close(release)
	if replies, err = s.Recv(); err != nil || replies[0].Kind != wire.Nack || replies[0].Code != wire.WriteFailed {
		t.Errorf("%+v, %v: the failure is wanted when it is noted", replies, err)
	}
}

// working is how many workers have something to do.
func (n *labNode) working() int {
	w := n.get().work
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running - w.idle
}

// R18, R23, R26: the flush that closes a resync stalls, which counts as an error, and then succeeds after all. What was
// noted meanwhile stays: the replica is neither whole nor healthy.
func TestStalledFlushThatSucceedsClosesNoResync(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	w := startLoad(t, a.serving(), 2)
	w.more(l, 50)
	l.lose(b, w)
	w.end()
	l.await("the old stream to end, which has flushes too", func() bool { return b.stream() == 0 && b.quiet() })
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	b.cable.mend()
	l.await("the last flush", func() bool { return held.Waiting() == 1 })
	b.get().Stalled(blockdev.OpFlush, blockdev.Range{}, time.Minute) // as the watch over the backing would say
	l.await("the stall to be noted", func() bool { _, failed := b.sb.health(); return failed })
	b.cable.cut() // no other resync before we have looked
	held.Remove()
	l.await("the flush to end", b.quiet)
	if inconsistent, failed := b.sb.health(); !inconsistent || !failed {
		t.Errorf("inconsistent %t, failed %t after a flush that was out of time", inconsistent, failed)
	}
	if l.volume().IsMember("b") {
		t.Error("it is a member")
	}
	b.cable.mend()
	l.await("the standby to be admitted after another resync", func() bool { return l.volume().IsMember("b") })
	l.same("a", "b")
}

// noting takes the right to note for the test's own: notes wait until it is given back.
func (n *labNode) noting() (giveBack func()) {
	r := n.get()
	r.noting <- struct{}{}
	return sync.OnceFunc(func() { <-r.noting })
}

// R23, R26: a superblock may be as slow as the disk that failed. Who keeps a stream or the time does not wait for the note;
// but the gate stays shut, and should the tenure end before, no stream is answered, until it is made.
func TestNoteOfAFailureHoldsUpAnswersAndNoLoop(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	a.mu.Lock()
	a.onGiveUp = func(string, bool) error { return nil }
	a.mu.Unlock()
	ten, r := a.serving(), a.get()
	a.connected("b")
	giveBack := a.noting()
	defer giveBack()
	acts := &actions{list: []primary.Action{{Kind: primary.DiskFailed, Err: errFault}}}
	ten.mu.Lock()
	ten.noteLocked(acts, &acts.list[0])
	ten.mu.Unlock()
	carried := make(chan struct{})
	go func() { ten.run(acts, loop); close(carried) }()
	select {
	case <-carried:
	case <-time.After(patience):
		giveBack()
		t.Fatal("a loop waits for a superblock")
	}
	if ten.gate.try() {
		t.Error("the gate is open before the failure is noted")
	}
	l.nodes["b"].cable.cut() // no resync, which would take the note back
	l.promote("b", cluster.BasisUnchanged)
	l.await("the end of the tenure", func() bool { return r.Tenure() == nil })
	r.mu.Lock()
	draining := r.draining
	r.mu.Unlock()
	if draining != 1 {
		t.Errorf("%d operations are waited for, want the note", draining)
	}
	giveBack()
	l.await("the note", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.draining == 0 })
	if _, failed := a.sb.health(); !failed {
		t.Error("not noted")
	}
}

// R23, faults.md D91: a flush of a primary fails when its tenure has ended. The kernel tells of that once; it is noted
// before the next epoch is taken, or a later flush would vouch for what the disk never got.
func TestFlushThatFailsAfterTheTenureIsNoted(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	held := a.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Times: 1, Stall: true, Err: errFault})
	answer := c.begin(&blockdev.Request{Op: blockdev.OpFlush})
	l.await("the flush", func() bool { return held.Waiting() == 1 })
	a.expire()
	l.promote("b", cluster.BasisUnchanged)
	if err := <-answer; !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	l.await("the end of the tenure", func() bool { return a.get().Tenure() == nil })
	held.Release()
	l.await("the next epoch to be stored", func() bool { return a.super.Epoch() == 2 })
	a.sb.mu.Lock()
	changes := slices.Clone(a.sb.changes)
	a.sb.mu.Unlock()
	noted, stored := slices.Index(changes, "inconsistent false failed true"), slices.Index(changes, "epoch 2")
	if noted < 0 || noted > stored {
		t.Errorf("%q: the failure is wanted before the epoch", changes)
	}
	b.grant()
	b.serving()
}

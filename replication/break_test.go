package replication

import (
	"context"
	"errors"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// faults.md G45, G50: a stream that breaks in the middle is replayed by the next; nothing is dropped or resynced.
func TestConnectionThatBreaksUnderLoadCostsNoResync(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	w := startLoad(t, a.serving(), 4)
	for range 5 {
		w.more(l, 100)
		l.nodes["b"].cable.snap()
	}
	w.more(l, 100)
	w.end()
	l.same("a", "b")
	if l.drops() != 0 || !l.volume().IsMember("b") {
		t.Errorf("%d drops, volume %+v", l.drops(), l.volume())
	}
}

// A process that is killed loses nothing that the operating system took: its successor says so and is replayed.
func TestKilledStandbyProcessComesBackWithoutResync(t *testing.T) {
	for _, inline := range []bool{true, false} {
		l := formed(t, labConfig{inline: inline}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		w := startLoad(t, a.serving(), 4)
		w.more(l, 100)
		b.crash()
		b.start()
		w.more(l, 100)
		w.end()
		l.same("a", "b")
		if l.drops() != 0 || l.volume().Members["b"].Process != 2 {
			t.Errorf("%d drops, members %+v", l.drops(), l.volume().Members)
		}
	}
}

// R4, faults.md G51: a standby that takes the connection and never answers is dropped by a committed entry before what
// it lacks is acknowledged.
func TestHungStandbyIsDroppedBeforeTheWriteIsAcknowledged(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	a.connected("b")
	c := ten.client(t)
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	l.nodes["b"].cable.hang()
	asked := make(chan struct{}, 100)
	l.decide(func(cluster.Command) error { asked <- struct{}{}; return errors.New("no leader") })
	answer := c.begin(writeReq(4096, pattern(4096, 2)))
	for range 3 { // undecided: asked again, and the write waits (R27)
		l.pass(2 * dropAfter)
		<-asked
		select {
		case err := <-answer:
			t.Fatalf("answered (%v) although nothing was decided", err)
		default:
		}
	}
	l.decide(nil)
	l.pass(2 * dropAfter)
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if l.volume().IsMember("b") {
		t.Error("answered while the standby is a member")
	}
}

// R17: what is written while a resync runs is there at its end, on both sides.
func TestResyncUnderLoad(t *testing.T) {
	for _, inline := range []bool{true, false} {
		l := formed(t, labConfig{inline: inline}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		ten := a.serving()
		a.connected("b")
		w := startLoad(t, ten, 4)
		w.more(l, 50)
		l.lose(b, w)
		b.cable.mend()
		l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
		w.more(l, 100)
		w.end()
		l.same("a", "b")
		if i, f := b.sb.health(); i || f {
			t.Errorf("after the resync: inconsistent %t, failed %t", i, f)
		}
	}
}

// lose cuts a standby off until it is dropped, and lets the primary go on alone for a while.
func (l *lab) lose(n *labNode, w *load) {
	l.t.Helper()
	n.cable.cut()
	l.await(n.name+" to be dropped", func() bool {
		l.pass(2 * dropAfter)
		return !l.volume().IsMember(n.name)
	})
	w.more(l, 100)
}

// R18: from the first block overwritten to the closing, the target is marked on stable storage, and a new process of it
// knows.
func TestTargetOfAResyncIsMarkedUntilItIsWhole(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	w := startLoad(t, a.serving(), 2)
	w.more(l, 50)
	l.lose(b, w)
	w.end()
	b.cable.snap() // what is left of the old stream is written in order and needs no mark
	l.await("the old stream to end", func() bool { return b.stream() == 0 && b.quiet() })
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	b.cable.mend()
	l.await("the resync to write", func() bool { return held.Waiting() > 0 })
	if i, _ := b.sb.health(); !i {
		t.Error("blocks are overwritten, and nothing on stable storage says so")
	}
	if rep := b.get().Report(); !rep.Inconsistent || rep.Usable() {
		t.Errorf("report %+v of a replica in pieces", rep)
	}
	held.Remove()
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
	if i, _ := b.sb.health(); i {
		t.Error("admitted while marked inconsistent")
	}
	l.same("a", "b")
}

// With three replicas, an operation that is complete is still held for the one that is being resynced: its memory must
// not be used again before its end was reported. (clientConn checks that each Done is called once.)
func TestThreeReplicasWhileOneComesAndGoes(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b", "c")
	a, c := l.nodes["a"], l.nodes["c"]
	ten := a.serving()
	a.connected("b")
	a.connected("c")
	w := startLoad(t, ten, 4)
	for range 3 {
		l.mustOn(func(on cluster.On) cluster.Command {
			return cluster.Command{By: "a", Drop: &cluster.Drop{On: on, Node: "c"}}
		})
		w.more(l, 50)
		l.await("a resync", func() bool { return a.peer("c").Resyncing || l.volume().IsMember("c") })
		w.more(l, 10)
		c.cable.snap()
		w.more(l, 50)
		l.await("the third to be admitted", func() bool { return l.volume().IsMember("c") })
	}
	w.end()
	l.same("a", "b", "c")
}

// R21, faults.md G49: a block that was changed on its way is not written; the stream is replayed.
func TestChangedPayloadIsRefusedAndReplayed(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	b.cable.corrupt(1)
	if err := c.write(8192, marked(4096, 7)); err != nil {
		t.Fatal(err)
	}
	if b.cable.left() != 0 {
		t.Fatal("nothing was changed on its way")
	}
	if n := b.get().Figures().ChecksumErrors; n != 1 {
		t.Errorf("%d blocks are counted, want 1", n)
	}
	l.same("a", "b")
	if l.drops() != 0 {
		t.Error("dropped for a single mismatch")
	}
}

// faults.md G49: twice in a row, it leaves the set. The changed block is never written.
func TestPayloadChangedTwiceInARowDropsTheStandby(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	b.cable.corrupt(2)
	if err := c.write(8192, marked(4096, 7)); err != nil {
		t.Fatal(err)
	}
	if l.drops() != 1 {
		t.Errorf("%d drops, want 1", l.drops())
	}
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
	l.same("a", "b")
}

// faults.md G52: an acknowledgement of what was never sent acknowledges nothing.
func TestAcknowledgementOfWhatWasNotSentCountsForNothing(t *testing.T) {
	l := newLab(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	acked := make(chan struct{}, 1000)
	b.impersonate(func(ctx context.Context, s *link.Session) error {
		if err := s.Reply(wire.HelloReply{Node: "b", Boot: b.boot, Attachment: "1", Process: 1}); err != nil {
			return err
		}
		if err := s.Send(wire.Reply{Kind: wire.Ack, Seq: 5}); err != nil {
			return err
		}
		acked <- struct{}{}
		<-ctx.Done()
		return nil
	})
	l.form("a", "b")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	answer := a.serving().client(t).begin(writeReq(0, pattern(4096, 1)))
	for range 3 { // each such stream is closed and another one opened
		<-acked
	}
	select {
	case err := <-answer:
		t.Fatalf("answered (%v) by an acknowledgement of what was not sent", err)
	default:
	}
	b.impersonate(nil)
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	l.same("a", "b")
}

// R29: a read that overlaps a write which is not yet on every member waits for that write.
func TestReadWaitsForTheWriteThatItMayHaveSeen(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	written := c.begin(writeReq(4096, pattern(4096, 9)))
	l.await("the standby to write", func() bool { return held.Waiting() == 1 })
	// The primary may be at its mark still, while the standby has the write: a read that began before it is right to see
	// what was there.
	l.await("the primary to have written", func() bool { return a.at(4096, 4096)[0] == 9 })
	buf := blockdev.NewBuf(4096)
	read := c.begin(&blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Off: 6144, Len: 4096}, Buf: buf})
	if _, err := c.read(0, 4096); err != nil { // what overlaps nothing does not wait
		t.Fatal(err)
	}
	select {
	case err := <-read:
		t.Fatalf("answered (%v) with what the standby may never have", err)
	case <-time.After(20 * time.Millisecond):
	}
	held.Remove()
	if err := errors.Join(<-read, <-written); err != nil {
		t.Fatal(err)
	}
	if buf.Bytes()[0] != 9 {
		t.Error("the read did not see the write")
	}
}

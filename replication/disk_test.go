package replication

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

// R23, faults.md D91: a standby whose write or flush fails says so, is dropped, and comes back only when it was copied
// whole.
func TestStandbyWhoseDiskFailsIsDroppedAndResynced(t *testing.T) {
	for _, op := range []blockdev.Op{blockdev.OpWrite, blockdev.OpFlush, blockdev.OpZero} {
		for _, inline := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v inline=%t", op, inline), func(t *testing.T) {
				l := formed(t, labConfig{inline: inline}, "a", "b")
				a, b := l.nodes["a"], l.nodes["b"]
				ten := a.serving()
				a.connected("b")
				w := startLoad(t, ten, 3)
				w.more(l, 50)
				fault := b.faults.Add(faultdev.Rule{Op: op, Times: 1, Err: errFault})
				l.await("the standby to be dropped", func() bool { return l.drops() > 0 })
				if fault.Hits() != 1 {
					t.Fatal("dropped without a fault")
				}
				l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
				w.more(l, 50)
				w.end()
				l.same("a", "b")
				if i, f := b.sb.health(); i || f {
					t.Errorf("after the resync: inconsistent %t, failed %t", i, f)
				}
				first := slices.IndexFunc(b.sb.changes, func(c string) bool { return !strings.HasPrefix(c, "epoch") }) // which the greeting and Run may both store
				if b.sb.changes[first] != "inconsistent false failed true" {
					t.Errorf("noted %q first", b.sb.changes)
				}
			})
		}
	}
}

// R23: between the failure and the note of it nothing is answered, and no other stream is.
func TestNothingIsAnsweredBeforeAFailureIsNoted(t *testing.T) {
	l := formed(t, labConfig{inline: false}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	noting, release := b.super.holdFailure()
	b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Range: blockdev.Range{Off: 0, Len: 512}, Times: 1, Err: errFault})
	one := c.begin(writeReq(0, pattern(4096, 1)))
	<-noting
	b.super.intercept(nil)
	two := c.begin(writeReq(8192, pattern(4096, 2)))
	before := b.stream()
	b.cable.snap() // a new stream is greeted
	time.Sleep(30 * time.Millisecond)
	if n := b.stream(); n > before {
		t.Errorf("stream %d was accepted before the failure was noted", n)
	}
	for _, answer := range []<-chan error{one, two} {
		select {
		case err := <-answer:
			t.Errorf("answered (%v) before the failure was noted", err)
		default:
		}
	}
	close(release)
	if err := errors.Join(<-one, <-two); err != nil {
		t.Fatal(err)
	}
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") && l.drops() == 1 })
	l.same("a", "b")
}

// stream is the number of the stream that the node receives.
func (n *labNode) stream() uint64 {
	r := n.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == nil {
		return 0
	}
	return r.session.stream
}

// R23: what cannot note that it failed stays down until a person acts.
func TestStandbyThatCannotNoteItsFailureStaysDown(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	b.super.intercept(func(string) error { return errFault })
	b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Err: errFault})
	answer := c.begin(writeReq(0, pattern(4096, 1)))
	l.await("the standby to give up", func() bool { return b.get().Report().Problem != "" })
	l.await("an event that says so", func() bool { return b.has("out of service") })
	l.await("the standby to be dropped", func() bool { l.pass(2 * dropAfter); return l.drops() > 0 })
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	b.super.intercept(nil)
	b.cable.snap()
	time.Sleep(50 * time.Millisecond)
	if a.peer("b").Connected || b.sb.mark() != nil {
		t.Error("it takes part again, or left a mark of a clean stop")
	}
}

// R23, faults.md D89, D90: a primary whose own disk fails answers no more writes and leaves; the client goes on with
// the next one.
func TestPrimaryWhoseDiskFailsHandsOver(t *testing.T) {
	for _, op := range []blockdev.Op{blockdev.OpWrite, blockdev.OpFlush} {
		t.Run(op.String(), func(t *testing.T) {
			l := formed(t, labConfig{inline: true}, "a", "b")
			a, b := l.nodes["a"], l.nodes["b"]
			ten := a.serving()
			a.connected("b")
			c := ten.client(t)
			a.faults.Add(faultdev.Rule{Op: op, Times: 1, Err: errFault})
			req := writeReq(0, pattern(4096, 3))
			if op == blockdev.OpFlush {
				req = &blockdev.Request{Op: blockdev.OpFlush}
			}
			if err := c.do(req); !errors.Is(err, errCut) {
				t.Fatalf("answered %v, want the connection to be closed", err)
			}
			if _, f := a.sb.health(); !f {
				t.Error("the failure is not noted")
			}
			next := b.serving()
			if a.giveUps[0] != "1  true" {
				t.Errorf("give-ups %q, want one of epoch 1 that says why", a.giveUps)
			}
			if err := next.client(t).write(4096, pattern(4096, 4)); err != nil {
				t.Fatal(err)
			}
			l.await("the failed one to be resynced", func() bool { return l.volume().IsMember("a") })
			l.same("a", "b")
			if _, f := a.sb.health(); f {
				t.Error("still marked as failed after its resync")
			}
		})
	}
}

// R23: as the only member it reports the error, and no later flush claims that all is well.
func TestLoneMemberReportsTheErrorOfItsDisk(t *testing.T) {
	l := newLab(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	l.nodes["b"].cable.cut()
	l.form("a")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	c := a.serving().client(t)
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	a.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Times: 1, Err: errFault})
	if err := c.flush(); !errors.Is(err, errFault) {
		t.Fatalf("flush: %v, want the error of the disk", err)
	}
	if _, f := a.sb.health(); !f {
		t.Error("reported before it was noted")
	}
	if err := c.flush(); err == nil {
		t.Error("a later flush says that all is durable")
	}
	if err := c.write(0, pattern(4096, 2)); err != nil {
		t.Errorf("a later write: %v", err)
	}
}

// R23: a lone primary that cannot note its failure answers nothing any more.
func TestPrimaryThatCannotNoteItsFailureStopsServing(t *testing.T) {
	l := newLab(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	l.nodes["b"].cable.cut()
	l.form("a")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	c := a.serving().client(t)
	a.super.intercept(func(string) error { return errFault })
	a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Err: errFault})
	if err := c.write(0, pattern(4096, 1)); !errors.Is(err, errCut) {
		t.Errorf("answered %v", err)
	}
	l.await("the tenure to end", func() bool { return a.get().Tenure() == nil })
	a.super.intercept(nil)
	a.grant()
	if rep := a.get().Report(); rep.Usable() {
		t.Error("reports itself as usable")
	}
}

// hungPrimary is a lab whose primary has a write that does not return from its disk.
func hungPrimary(t *testing.T, conf labConfig) (l *lab, held *faultdev.Handle, answer <-chan error) {
	l = formed(t, conf, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	a.connected("b")
	held = a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 3, Stall: true})
	answer = ten.client(t).begin(writeReq(0, pattern(4096, 1)))
	l.await("the write to hang", func() bool { return held.Waiting() == 1 })
	return l, held, answer
}

// R26, faults.md D94: a stall on the primary hands the role over; the hung write keeps its node out of the new epoch
// until it has returned, and lands before anything of the new primary does (R2).
func TestStallOnThePrimaryHandsOver(t *testing.T) {
	l, held, answer := hungPrimary(t, labConfig{workers: 1, deadline: 100 * time.Millisecond})
	a, b := l.nodes["a"], l.nodes["b"]
	if err := <-answer; !errors.Is(err, errCut) {
		t.Fatalf("answered %v", err)
	}
	c := b.serving().client(t)
	if err := c.write(0, pattern(4096, 2)); err != nil {
		t.Fatal(err)
	}
	if _, f := a.sb.health(); !f {
		t.Error("the stall is not noted")
	}
	if e := a.get().Report().Epoch; e != 1 {
		t.Errorf("took epoch %d with an operation of an older one on its device", e)
	}
	held.Remove()
	l.await("the stalled one to be resynced", func() bool { return l.volume().IsMember("a") })
	l.same("a", "b")
}

// The same without a watcher that notices: the role is taken away, and the old write has not returned.
func TestOldWriteOnTheDeviceKeepsTheNewStreamWaiting(t *testing.T) {
	l, held, answer := hungPrimary(t, labConfig{})
	a, b := l.nodes["a"], l.nodes["b"]
	a.expire()
	l.promote("b", cluster.BasisUnchanged)
	b.grant()
	if err := <-answer; !errors.Is(err, errCut) {
		t.Fatalf("answered %v", err)
	}
	c := b.serving().client(t)
	if err := c.write(0, pattern(4096, 2)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if b.peer("a").Connected || a.get().Report().Epoch != 1 {
		t.Error("the new epoch was answered in before the old write had returned")
	}
	held.Remove()
	l.await("the old primary to be resynced", func() bool { return l.volume().IsMember("a") })
	l.same("a", "b")
}

// R26: a hung disk does not keep the daemon from stopping, on either side, and leaves no mark of a clean stop.
func TestHungDiskDoesNotKeepTheDaemonFromStopping(t *testing.T) {
	for _, inline := range []bool{true, false} {
		for _, who := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("%s inline=%t", who, inline), func(t *testing.T) {
				l := formed(t, labConfig{inline: inline, workers: 2, deadline: 100 * time.Millisecond}, "a", "b")
				n := l.nodes[who]
				ten := l.nodes["a"].serving()
				l.nodes["a"].connected("b")
				n.faults.Add(faultdev.Rule{Stall: true})
				c := ten.client(t)
				for i := range 5 {
					go func() { _ = c.write(int64(i)*4096, pattern(4096, 1)) }()
				}
				l.await("the disk to hang", func() bool { return n.dev.Stalled() })
				n.stop()
				if err := <-n.done; !errors.Is(err, blockdev.ErrStalled) || !strings.Contains(err.Error(), "outstanding for") {
					t.Errorf("stopped with %v, want to be told that the device hangs, and in what", err)
				}
				n.done <- nil
				if n.sb.mark() != nil {
					t.Error("left a mark of a clean stop")
				}
			})
		}
	}
}

// R26: nothing hung until the last flush of a stop.
func TestDiskThatHangsInTheLastFlushIsNamedByTheStop(t *testing.T) {
	l := formed(t, labConfig{deadline: 100 * time.Millisecond}, "a", "b")
	b := l.nodes["b"]
	l.nodes["a"].connected("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	b.stop()
	if err := <-b.done; !errors.Is(err, blockdev.ErrStalled) || !strings.Contains(err.Error(), "flush") {
		t.Errorf("stopped with %v, want to be told that the flush hangs", err)
	}
	b.done <- nil
	if held.Waiting() != 1 || b.sb.mark() != nil {
		t.Errorf("%d flushes hang; mark of a clean stop: %v", held.Waiting(), b.sb.mark())
	}
}

// A resync that hangs in reading what it compares does not keep the tenure from ending.
func TestHungComparisonDoesNotKeepTheDaemonFromStopping(t *testing.T) {
	l := formed(t, labConfig{inline: true, deadline: 100 * time.Millisecond}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	ten := a.serving()
	a.connected("b")
	b.cable.cut()
	l.await("the standby to be dropped", func() bool { l.pass(2 * dropAfter); return l.drops() > 0 })
	if err := ten.client(t).write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	held := a.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	b.cable.mend()
	l.await("the comparison to hang", func() bool { return held.Waiting() > 0 && a.dev.Stalled() })
	a.stop()
	if err := <-a.done; !errors.Is(err, blockdev.ErrStalled) {
		t.Errorf("stopped with %v", err)
	}
	a.done <- nil
}

// R26: a stall that is over but not noted yet is no reason to take a stream.
func TestNoStreamIsTakenBeforeAStallIsNoted(t *testing.T) {
	l := formed(t, labConfig{deadline: 100 * time.Millisecond}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	noting, release := b.super.holdFailure()
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Stall: true})
	answer := c.begin(writeReq(0, pattern(4096, 1)))
	<-noting
	b.super.intercept(nil)
	held.Remove()
	l.await("the stall to be over", func() bool { return !b.dev.Stalled() })
	before := b.stream()
	b.cable.snap()
	time.Sleep(30 * time.Millisecond)
	if n := b.stream(); n > before {
		t.Errorf("stream %d was accepted before the stall was noted", n)
	}
	close(release)
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") && l.drops() == 1 })
	l.same("a", "b")
}

// A stall on the standby drops it although the primary's connection lives on; when the disk answers again, it is
// resynced.
func TestStallOnTheStandbyDropsIt(t *testing.T) {
	l := formed(t, labConfig{deadline: 100 * time.Millisecond}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Stall: true})
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	if l.volume().IsMember("b") {
		t.Error("answered while the stalled standby is a member")
	}
	if _, f := b.sb.health(); !f {
		t.Error("the stall is not noted")
	}
	time.Sleep(30 * time.Millisecond)
	if a.peer("b").Connected {
		t.Error("a stalled replica takes a stream")
	}
	held.Remove()
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
	l.same("a", "b")
}

// R25: the mark of a clean stop comes after the last write, and a new process finds it. The writers did not wait for the
// one that stopped to fall silent: it was dropped when it said so (R4), for the lab's clock stands still.
func TestCleanStopUnderLoadLeavesTheMarkLast(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	w := startLoad(t, a.serving(), 3)
	w.more(l, 50)
	if err := b.halt(); err != nil {
		t.Fatal(err)
	}
	if m := b.sb.mark(); m == nil || m.Process != 1 {
		t.Fatalf("mark %v, want that of process 1", m)
	}
	w.more(l, 50)
	if l.drops() == 0 {
		t.Error("writes were acknowledged without it while it is a member")
	}
	b.boot[8]++ // the machine was restarted
	b.start()
	l.await("the standby to be admitted", func() bool { return l.volume().Members["b"].Process == 2 })
	w.more(l, 50)
	w.end()
	l.same("a", "b")
	if b.sb.mark() != nil {
		t.Error("the mark outlives the first write")
	}
}

// R25: a standby that stops while nothing is written is a member still when it comes back before the next write.
func TestCleanStopOfAnIdleStandbyKeepsItsMembership(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.halt(); err != nil {
		t.Fatal(err)
	}
	b.boot[8]++ // the machine was restarted
	b.start()
	l.await("its new process to be confirmed", func() bool { return l.volume().Members["b"].Process == 2 })
	a.connected("b")
	if err := c.write(4096, pattern(4096, 2)); err != nil {
		t.Fatal(err)
	}
	l.same("a", "b")
	if l.drops() > 0 {
		t.Errorf("%d drops, members %+v", l.drops(), l.volume().Members)
	}
}

// R25: what was taken and has not returned from the disk is waited for before the mark, also where no worker has it.
func TestCleanStopWaitsForTheLastWrite(t *testing.T) {
	for _, inline := range []bool{true, false} {
		l := formed(t, labConfig{inline: inline}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		c := a.serving().client(t)
		a.connected("b")
		held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Stall: true})
		answer := c.begin(writeReq(0, pattern(4096, 1)))
		l.await("the write to reach the disk", func() bool { return held.Waiting() == 1 })
		b.stop()
		time.Sleep(20 * time.Millisecond)
		if len(b.done) != 0 || b.sb.mark() != nil {
			t.Error("stopped, or marked, with a write on the disk")
		}
		held.Remove()
		err := <-b.done
		b.done <- nil
		if err != nil || b.sb.mark() == nil {
			t.Errorf("stopped with %v, mark %v", err, b.sb.mark())
		}
		if err := b.halt(); err != nil {
			t.Error(err)
		}
		b.start()
		if err := <-answer; err != nil {
			t.Error(err)
		}
		l.same("a", "b")
	}
}

// R23: the disk of a primary fails while its only other member is cut off. That one has what was lost, so nothing is
// answered and it is not sent away; when it is back, it takes the role. With no other member the client gets the error
// (TestLoneMemberReportsTheErrorOfItsDisk).
func TestFailedPrimaryWaitsForItsOnlyOtherMember(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	away := make(chan struct{})
	a.onGiveUp = func(to string, failed bool) error {
		select {
		case <-away:
			return l.handOn(a, to, failed)
		default:
			return errFault // nobody answers who could take it
		}
	}
	b.cable.cut()
	a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Err: errFault})
	answer := c.begin(writeReq(0, pattern(4096, 3)))
	l.await("the role to be given up", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.giveUps) > 0 })
	for range 20 {
		l.pass(dropAfter)
		time.Sleep(time.Millisecond)
	}
	if len(answer) > 0 || l.drops() > 0 {
		t.Fatalf("%d answers, %d drops: the member that has the data was sent away", len(answer), l.drops())
	}
	if s, ok := a.get().Serving(); !ok || !s.Suspended || !a.get().Report().Failed {
		t.Errorf("status %+v, report %+v", s, a.get().Report())
	}
	close(away)
	b.cable.mend()
	l.await("the other member to take the role", func() bool {
		a.grant() // a lease in the same epoch: it tries again to give it up
		l.pass(dropAfter)
		return l.volume().Primary == "b"
	})
	if err := <-answer; !errors.Is(err, errCut) {
		t.Errorf("answered %v", err)
	}
	l.await("the failed one to be resynced", func() bool { return l.volume().IsMember("a") })
	l.same("a", "b")
}

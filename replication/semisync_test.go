package replication

import (
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

// R3, R20: in semisync a write waits for the memory of the standby, a flush and a durable write for its disk.
func TestSemisyncWriteWaitsForMemoryAndFlushForTheDisk(t *testing.T) {
	l := formed(t, labConfig{mode: cluster.ModeSemisync}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.settled("b") // until then a read waits for what the standby has on its disk
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	for i := range int64(20) {
		if err := c.write(i*4096, pattern(4096, byte(1+i))); err != nil {
			t.Fatal(err)
		}
	}
	l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
	if b.at(0, 4096)[0] == 1 && b.at(19*4096, 4096)[0] == 20 {
		t.Fatal("the standby's disk did not hang")
	}
	if p, err := c.read(4096, 4096); err != nil || p[0] != 2 {
		t.Fatalf("read of what was acknowledged: %v, %v", p[:1], err)
	}
	fua := writeReq(40960, pattern(4096, 99))
	fua.FUA = true
	waiting := []<-chan error{c.begin(fua), c.begin(&blockdev.Request{Op: blockdev.OpFlush})}
	for _, w := range waiting {
		select {
		case err := <-w:
			t.Fatalf("answered (%v) with what the standby's disk may never have", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	held.Remove()
	for _, w := range waiting {
		if err := <-w; err != nil {
			t.Fatal(err)
		}
	}
	l.same("a", "b")
	if n := l.drops(); n != 0 {
		t.Errorf("%d drops", n)
	}
}

// R3: also where the reader of the stream carries writes out itself, as into a page cache.
func TestSemisyncWriteDoesNotWaitForABufferedBacking(t *testing.T) {
	l := formed(t, labConfig{mode: cluster.ModeSemisync, inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.settled("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	for i := range int64(4) {
		if err := c.write(i*4096, pattern(4096, 9)); err != nil {
			t.Fatal(err)
		}
	}
	l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
	held.Remove()
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	l.same("a", "b")
}

// R28: one write that hangs on the standby's disk does not hold in memory whatever is written behind it.
func TestSemisyncHoldsNoMoreThanItMay(t *testing.T) {
	l := formed(t, labConfig{mode: cluster.ModeSemisync, size: 4 << 20}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.settled("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Range: blockdev.Range{Len: 4096}, Stall: true})
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
	data := pattern(1<<20, 7)
	var all []<-chan error
	for i := range int64(70) {
		all = append(all, c.begin(writeReq((1+i%3)<<20, data)))
	}
	for _, w := range all[:60] {
		if err := <-w; err != nil {
			t.Fatal(err)
		}
	}
	room := a.get().cfg.Room
	l.await("all but the first to be on the standby's disk", func() bool {
		r := b.get()
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.recv.Taken() >= 71 && r.recv.Outstanding() == 1
	})
	if n := room.used.Load(); n < 60<<20 || n > 64<<20 {
		t.Errorf("%d bytes are held", n)
	}
	select {
	case err := <-all[69]:
		t.Errorf("answered (%v), although too much is held for it", err)
	default:
	}
	held.Remove()
	for _, w := range all[60:] {
		if err := <-w; err != nil {
			t.Fatal(err)
		}
	}
	l.same("a", "b")
	if n := l.drops(); n != 0 {
		t.Errorf("%d drops", n)
	}
	l.await("all to be given back", func() bool { return room.used.Load() == 0 })
}

// R6, R25: of what it took from the primary, a standby reports that it is not on its disk, until it is, also when the primary is
// gone: it is not promoted before.
func TestSemisyncStandbyReportsWhatItHasInMemoryOnly(t *testing.T) {
	l := formed(t, labConfig{mode: cluster.ModeSemisync}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.settled("b")
	unwritten := func() bool { r := b.get().Report(); return r.Taken != r.LastSeq }
	l.await("nothing to be under way", func() bool { return !unwritten() })
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	for i := range int64(8) {
		if err := c.write(i*4096, pattern(4096, byte(1+i))); err != nil {
			t.Fatal(err)
		}
		if !unwritten() {
			t.Fatal("an acknowledged write is in its memory only, and it says that all is written")
		}
	}
	a.crash()
	if !unwritten() {
		t.Error("it says that all is written when the primary is gone")
	}
	held.Remove()
	l.await("all to be written", func() bool { return !unwritten() })
	for i := range int64(8) {
		if p := b.at(i*4096, 4096); p[0] != byte(1+i) {
			t.Errorf("write %d is not there: %d", i, p[0])
		}
	}
}

// R12: the primary's clock stands still (a paused machine, R8), so it believes in its lease; the standby has reported that nothing is
// unwritten, takes one more write, and is promoted. Its process ends before that is written: the next one is not the member, also
// where the primary left in the entry that promoted, for its disk failed then, or its machine restarted.
func TestSemisyncSafetyOfWritesRestsOnNoClock(t *testing.T) {
	for _, leaves := range [][]string{nil, {"a"}} {
		l := formed(t, labConfig{mode: cluster.ModeSemisync}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		c := a.serving().client(t)
		a.settled("b")
		l.await("nothing to be under way", func() bool { r := b.get().Report(); return r.Taken == r.LastSeq })
		rep := b.get().Report() // asked for after a's lease had ended by every other clock
		held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
		if err := c.write(0, pattern(4096, 42)); err != nil {
			t.Fatal(err)
		}
		l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
		if v := l.volume(); !v.Unchanged("b", &rep) || !v.MayLead("b", &rep, rep.Taken) {
			t.Fatal("it is not promotable")
		}
		l.promote("b", cluster.BasisUnchanged, leaves...)
		a.crash()
		b.crash()
		b.start()
		v, now := l.volume(), b.get().Report()
		if v.Unchanged("b", &now) && b.at(0, 4096)[0] != 42 {
			t.Errorf("leaving %v: it is promoted as unchanged, and an acknowledged write is gone: primary %s, previous %q", leaves, v.Primary, v.Previous)
		}
	}
}

// R25: what was in the memory of a standby's process only is lost with it: it is dropped, and comes back by a resync.
func TestSemisyncStandbyWhoseProcessEndedIsDroppedAndResynced(t *testing.T) {
	l := formed(t, labConfig{mode: cluster.ModeSemisync}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	for i := range int64(8) {
		if err := c.write(i*4096, pattern(4096, byte(1+i))); err != nil {
			t.Fatal(err)
		}
	}
	l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
	b.crash()
	b.start()
	l.await("the standby to be dropped", func() bool { return l.drops() > 0 })
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
	if m := l.volume().Members["b"]; m.Process != b.process {
		t.Errorf("the set names process %d, %d runs", m.Process, b.process)
	}
	if err := c.write(65536, pattern(4096, 77)); err != nil {
		t.Fatal(err)
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	l.same("a", "b")
}

// R25: a clean stop loses nothing: the next process is the member, and nothing is copied.
func TestSemisyncStandbyThatStopsCleanlyStaysAMember(t *testing.T) {
	l := formed(t, labConfig{mode: cluster.ModeSemisync}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	if err := c.flush(); err != nil { // else it owes what it has in memory, and who stops and owes is dropped
		t.Fatal(err)
	}
	if err := b.halt(); err != nil {
		t.Fatal(err)
	}
	b.start()
	l.await("its new process to be the member", func() bool { return l.volume().Members["b"].Process == b.process })
	a.connected("b")
	if err := c.write(4096, pattern(4096, 2)); err != nil {
		t.Fatal(err)
	}
	if n := l.volume().Drops; n != 0 { // one that is decided on an older record may be proposed, and is void (R7)
		t.Errorf("%d drops", n)
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	l.same("a", "b")
}

// R6: who is promoted where nobody is left to be removed serves by an entry of its own.
func TestSemisyncSuccessorThatIsAloneActs(t *testing.T) {
	l := formed(t, labConfig{mode: cluster.ModeSemisync}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.settled("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	if err := c.write(0, pattern(4096, 42)); err != nil {
		t.Fatal(err)
	}
	l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
	a.crash()
	l.promote("b", cluster.BasisUnchanged, "a")
	b.grant()
	time.Sleep(20 * time.Millisecond) // enough for one that does not wait
	if v := l.volume(); v.Served != "a" || b.get().Tenure() != nil {
		t.Fatalf("it acts with a write of the last epoch in memory only: served %q", v.Served)
	}
	held.Remove()
	c = b.serving().client(t)
	if v := l.volume(); v.Served != "b" {
		t.Errorf("it serves, and a new process of it would not be the member: served %q", v.Served)
	}
	if p, err := c.read(0, 4096); err != nil || p[0] != 42 {
		t.Errorf("read of what was acknowledged before: %v, %v", p[:1], err)
	}
}

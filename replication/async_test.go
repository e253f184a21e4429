package replication

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
)

// wide is a bound that no test reaches by chance.
var wide = primary.Bound{Bytes: 32 << 20, Time: 24 * time.Hour, Patience: 24 * time.Hour}

func formedAsync(t testing.TB, conf labConfig) (l *lab, a, b *labNode, c *clientConn) {
	t.Helper()
	conf.mode = cluster.ModeAsync
	if conf.bound == (primary.Bound{}) {
		conf.bound = wide
	}
	l = formed(t, conf, "a", "b")
	a, b = l.nodes["a"], l.nodes["b"]
	c = a.serving().client(t)
	a.settled("b")
	return l, a, b, c
}

// status is what the primary n tells of another node.
func (n *labNode) status(name string) PeerStatus {
	s, _ := n.get().Serving()
	for _, p := range s.Peers {
		if p.Node == name {
			return p
		}
	}
	return PeerStatus{}
}

func stays(t *testing.T, w <-chan error, why string) {
	t.Helper()
	select {
	case err := <-w:
		t.Fatalf("answered (%v) %s", err, why)
	case <-time.After(20 * time.Millisecond):
	}
}

// R3, R20: in async nothing waits for the standby, and a flush for the primary's disk only.
func TestAsyncWaitsForThePrimaryAlone(t *testing.T) {
	for _, inline := range []bool{false, true} {
		l, a, b, c := formedAsync(t, labConfig{inline: inline})
		held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
		for i := range int64(20) {
			if err := c.write(i*4096, pattern(4096, byte(1+i))); err != nil {
				t.Fatal(err)
			}
		}
		fua := writeReq(20*4096, pattern(4096, 21))
		fua.FUA = true
		if err := c.do(fua); err != nil {
			t.Fatal(err)
		}
		if err := c.flush(); err != nil {
			t.Fatal(err)
		}
		l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
		if p, err := c.read(4096, 4096); err != nil || p[0] != 2 {
			t.Fatalf("read of what was acknowledged: %v, %v", p[:1], err)
		}
		if p := a.status("b"); p.LagBytes != 21*4096 || p.LagSince == 0 {
			t.Errorf("%+v", p)
		}
		held.Remove()
		l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 && a.status("b").Lag == 0 })
		l.same("a", "b")
		l.await("all to be given back", func() bool { return a.get().cfg.Room.used.Load() == 0 })
	}
}

// R13: what follows a flush of the stream, or a durable write, is written when that is durable.
func TestAsyncFlushOfTheStreamIsDurableBeforeWhatFollows(t *testing.T) {
	for _, inline := range []bool{false, true} {
		for name, rule := range map[string]faultdev.Rule{
			"flush":         {Op: blockdev.OpFlush, Stall: true},
			"durable write": {Op: blockdev.OpWrite, Range: blockdev.Range{Off: 4096, Len: 4096}, Stall: true},
		} {
			t.Run(name, func(t *testing.T) {
				l, a, b, c := formedAsync(t, labConfig{inline: inline, unmarked: true}) // marks are flushed for, too
				held := b.faults.Add(rule)
				if err := c.write(0, pattern(4096, 1)); err != nil {
					t.Fatal(err)
				}
				barrier := &blockdev.Request{Op: blockdev.OpFlush}
				if name != "flush" {
					barrier = writeReq(4096, pattern(4096, 2))
					barrier.FUA = true
				}
				if err := c.do(barrier); err != nil {
					t.Fatal(err)
				}
				for i := range int64(8) {
					if err := c.write((2+i)*4096, pattern(4096, 3)); err != nil {
						t.Fatal(err)
					}
				}
				l.await("the standby to have taken all, and to be at its disk", func() bool { return held.Waiting() > 0 && b.get().Report().Taken >= 10 })
				time.Sleep(10 * time.Millisecond) // enough for one that does not wait
				if p := b.at(2*4096, 8*4096); !bytes.Equal(p, make([]byte, len(p))) {
					t.Error("what followed is written, and what it followed is not durable")
				}
				if p := b.at(0, 4096); p[0] != 1 {
					t.Error("what came before is not written")
				}
				held.Remove()
				l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 && b.get().Report().LastSeq >= 10 })
				l.same("a", "b")
			})
		}
	}
}

// R13, R23: where a write, a durable write or a flush of the stream fails, what waited behind the flush is not written any more: it
// would be on a disk that lacks what a client was told is durable.
func TestAsyncFailureLeavesWhatFollowsUnwritten(t *testing.T) {
	first := blockdev.Range{Len: 4096}
	for _, inline := range []bool{false, true} {
		for name, x := range map[string]struct {
			rule    faultdev.Rule
			durable bool // the write is; else a flush follows it
		}{
			"write":         {rule: faultdev.Rule{Op: blockdev.OpWrite, Range: first}},
			"durable write": {rule: faultdev.Rule{Op: blockdev.OpWrite, Range: first}, durable: true},
			"flush":         {rule: faultdev.Rule{Op: blockdev.OpFlush}},
		} {
			if inline && name == "write" {
				continue // the reader carries it out itself, and takes nothing behind it before it has failed
			}
			t.Run(name, func(t *testing.T) {
				l, _, b, c := formedAsync(t, labConfig{inline: inline, unmarked: true}) // marks are flushed for, too
				x.rule.Stall, x.rule.Times, x.rule.Err = true, 1, errFault
				fails := b.faults.Add(x.rule)
				req, sent := writeReq(0, pattern(4096, 1)), uint64(9)
				req.FUA = x.durable
				if err := c.do(req); err != nil {
					t.Fatal(err)
				}
				if !x.durable {
					sent++
					if err := c.flush(); err != nil {
						t.Fatal(err)
					}
				}
				for i := range int64(8) {
					if err := c.write((1+i)*4096, pattern(4096, 3)); err != nil {
						t.Fatal(err)
					}
				}
				l.await("the standby to have taken all, and to be at its disk", func() bool { return fails.Waiting() > 0 && b.get().Report().Taken >= sent })
				b.cable.cut() // no resync writes it
				fails.Release()
				l.await("the standby to be through with all", func() bool { return b.outstanding() == 0 })
				if !b.get().super.Failed() {
					t.Error("the failure is not noted")
				}
				if p := b.at(4096, 8*4096); !bytes.Equal(p, make([]byte, len(p))) {
					t.Error("what followed is written, and what it followed is not durable")
				}
			})
		}
	}
}

// outstanding is how much of what n took as a standby has not returned from its disk.
func (n *labNode) outstanding() int {
	r := n.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recv.Outstanding()
}

// R11: in async another replica may be promoted without what is acknowledged, so everything is answered by a valid lease only.
func TestAsyncAnswersByALeaseOnly(t *testing.T) {
	l, a, b, c := formedAsync(t, labConfig{})
	before := a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	write := c.begin(writeReq(0, pattern(4096, 1)))
	l.await("the write to be at the disk", func() bool { return before.Waiting() > 0 })
	read := a.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	reading := c.begin(&blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Off: 8192, Len: 4096}, Buf: blockdev.NewBuf(4096)})
	flush := c.begin(&blockdev.Request{Op: blockdev.OpFlush})
	l.await("the read to be at the disk", func() bool { return read.Waiting() > 0 })
	select {
	case err := <-flush: // it may have been answered by the lease that was
		if err != nil {
			t.Fatal(err)
		}
		flush = nil
	case <-time.After(5 * time.Millisecond):
	}
	a.expire()
	before.Remove()
	read.Remove()
	l.await("the standby to have it", func() bool { return b.at(0, 4096)[0] == 1 })
	stays(t, write, "without a lease")
	stays(t, reading, "without a lease")
	a.grant()
	for _, w := range []<-chan error{write, reading} {
		if err := <-w; err != nil {
			t.Fatal(err)
		}
	}
	if flush != nil {
		if err := <-flush; err != nil {
			t.Fatal(err)
		}
	}
}

// R13: to the byte, held against what is on the standby's disk.
func TestAsyncStandbyNeverLacksMoreThanTheBound(t *testing.T) {
	const each, bound = 4096, 64 << 10
	l, a, b, c := formedAsync(t, labConfig{bound: primary.Bound{Bytes: bound, Time: 24 * time.Hour, Patience: 24 * time.Hour}})
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	var all []<-chan error
	for i := range int64(100) {
		all = append(all, c.begin(writeReq(i*each, pattern(each, byte(1+i)))))
	}
	told := func() (n int) {
		for _, w := range all {
			n += len(w)
		}
		return n
	}
	l.await("the bound to hold them", func() bool { return a.status("b").AtBound && told() >= bound/2/each })
	time.Sleep(20 * time.Millisecond)
	if n := told(); n*each > bound {
		t.Errorf("%d bytes were acknowledged, and the standby has none of them", n*each)
	}
	p := a.status("b")
	if p.LagBytes != int64(told()*each) || !p.Slowed {
		t.Errorf("%+v, %d were acknowledged", p, told())
	}
	a.get().SetBound(primary.Bound{Bytes: 80 * each, Time: 24 * time.Hour, Patience: 24 * time.Hour}) // changed online
	l.await("as many as half of the new bound", func() bool { return told() >= 40 })
	held.Remove()
	for _, w := range all {
		if err := <-w; err != nil {
			t.Fatal(err)
		}
	}
	l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	l.same("a", "b")
	if n := l.drops(); n != 0 {
		t.Errorf("%d drops", n)
	}
}

// R4: writers are not kept waiting for longer than the patience, and what they waited with is acknowledged when the standby has left.
func TestAsyncStandbyIsDroppedAfterPatience(t *testing.T) {
	l, _, b, c := formedAsync(t, labConfig{bound: primary.Bound{Bytes: 4096, Time: 24 * time.Hour, Patience: 2 * dropAfter}})
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	waits := c.begin(writeReq(4096, pattern(4096, 2)))
	l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
	l.pass(dropAfter)
	stays(t, waits, "beyond the bound")
	if l.drops() != 0 {
		t.Fatal("dropped before its patience")
	}
	var why string
	l.decide(func(cmd cluster.Command) error {
		if cmd.Drop != nil {
			why = cmd.Drop.Reason
		}
		return nil
	})
	l.pass(dropAfter + time.Second)
	l.await("the standby to be dropped", func() bool { return !l.volume().IsMember("b") })
	if err := <-waits; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(why, "4096 bytes") {
		t.Errorf("dropped, for %q", why)
	}
	held.Remove()
	l.await("it to be admitted", func() bool { return l.volume().IsMember("b") })
	if err := c.write(8192, pattern(4096, 3)); err != nil {
		t.Fatal(err)
	}
	l.await("it to have all", func() bool { return b.at(8192, 1)[0] == 3 && b.at(4096, 1)[0] == 2 })
}

// R30: nothing that was acknowledged is lost by a hand-over.
func TestAsyncHandOverLosesNothing(t *testing.T) {
	l, a, b, c := formedAsync(t, labConfig{})
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	for i := range int64(30) {
		if err := c.write(i*4096, pattern(4096, byte(1+i))); err != nil {
			t.Fatal(err)
		}
	}
	l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
	done := make(chan error, 1)
	go func() { done <- a.get().HandOver(t.Context(), "b") }()
	select {
	case err := <-done:
		t.Fatalf("handed over (%v) while the standby lacks what was acknowledged", err)
	case <-time.After(20 * time.Millisecond):
	}
	meanwhile := c.begin(writeReq(1<<20, pattern(4096, 99)))
	l.await("a write to be admitted", func() bool { return a.at(1<<20, 1)[0] == 99 })
	stays(t, meanwhile, "before the standby has it")
	held.Remove()
	if err := <-meanwhile; err != nil || b.at(1<<20, 1)[0] != 99 {
		t.Errorf("a write that came when the hand-over had begun: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i := range int64(30) {
		if p := b.at(i*4096, 1); p[0] != byte(1+i) {
			t.Errorf("write %d is not there: %d", i, p[0])
		}
	}
	l.durable("b")
	if v := l.volume(); v.Primary != "b" || !v.IsMember("a") {
		t.Errorf("%+v", v)
	}
}

// R23: a primary whose disk failed sends on what clients were told of before it gives the role up, as long as the standby takes it.
func TestAsyncFailedDiskGivesUpWhenTheStandbyHasAll(t *testing.T) {
	for name, takes := range map[string]bool{"it takes it": true, "it hangs": false} {
		t.Run(name, func(t *testing.T) {
			l, a, b, c := formedAsync(t, labConfig{bound: primary.Bound{Bytes: 1 << 20, Time: 24 * time.Hour, Patience: 2 * dropAfter}})
			held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
			for i := range int64(30) {
				if err := c.write(i*4096, pattern(4096, byte(1+i))); err != nil {
					t.Fatal(err)
				}
			}
			l.await("the standby to be at its disk", func() bool { return held.Waiting() > 0 })
			a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Err: errFault})
			failed := c.begin(writeReq(1<<20, pattern(4096, 99)))
			l.await("the failure to be noted", func() bool { return a.get().Report().Failed })
			gaveUp := func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.giveUps) > 0 }
			a.get().Tenure().look()
			time.Sleep(20 * time.Millisecond)
			if gaveUp() {
				t.Fatal("given up while the standby lacks what was acknowledged")
			}
			if takes {
				held.Remove()
			} else {
				l.pass(2*dropAfter + time.Second)
			}
			l.await("the role to be given up", func() bool { a.get().Tenure().lookNow(); return gaveUp() })
			if err := <-failed; err == nil {
				t.Error("a write that failed here was acknowledged")
			}
			if takes {
				for i := range int64(30) {
					if p := b.at(i*4096, 1); p[0] != byte(1+i) {
						t.Errorf("write %d is not there: %d", i, p[0])
					}
				}
			}
			held.Remove()
			l.await("the standby to be promoted", func() bool { return l.volume().Primary == "b" && b.get().Tenure() != nil })
		})
	}
}

// R13, R20: who follows makes durable what it has before that counts as what there is, and lets another serve if it cannot.
func TestAsyncPromotedStandbyFlushesBeforeItServes(t *testing.T) {
	promoted := func(t *testing.T, rule faultdev.Rule) (l *lab, b *labNode, flush *faultdev.Handle) {
		l, a, b, c := formedAsync(t, labConfig{unmarked: true})
		for i := range int64(20) {
			if err := c.write(i*4096, pattern(4096, byte(1+i))); err != nil {
				t.Fatal(err)
			}
		}
		l.await("the standby to have written all", func() bool { return a.status("b").LagBytes == 0 })
		flush = b.faults.Add(rule)
		b.grant()
		l.promote("b", cluster.BasisUnchanged)
		l.await("the flush", func() bool { return flush.Hits() > 0 })
		return l, b, flush
	}
	t.Run("it does", func(t *testing.T) {
		l, b, flush := promoted(t, faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
		time.Sleep(20 * time.Millisecond)
		if v := l.volume(); v.Served != "a" || !v.IsMember("a") || b.get().Tenure() != nil {
			t.Errorf("b acts before what it has is durable: %+v", v)
		}
		flush.Remove()
		b.serving()
		l.durable("b")
	})
	t.Run("it cannot", func(t *testing.T) {
		l, b, _ := promoted(t, faultdev.Rule{Op: blockdev.OpFlush, Err: errFault})
		l.await("the role to be given up", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.giveUps) > 0 })
		if v := l.volume(); v.Served != "a" || b.get().Tenure() != nil {
			t.Errorf("b acts, and what it has is not durable: %+v", v)
		}
	})
}

// lookNow is look, also of a tenure that is gone.
func (t *Tenure) lookNow() {
	if t != nil {
		t.look()
	}
}

// After a hand-over that came to nothing writes are acknowledged ahead again, also those that waited.
func TestAsyncVoidHandOverLetsEverythingGoOn(t *testing.T) {
	for name, verdict := range map[string]error{"taken": nil, "refused": errors.New("moved")} {
		t.Run(name, func(t *testing.T) {
			l, a, b, c := formedAsync(t, labConfig{})
			a.mu.Lock()
			a.onGiveUp = func(string, bool) error { return verdict }
			a.mu.Unlock()
			held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
			for i := range int64(5) {
				if err := c.write(i*4096, pattern(4096, 1)); err != nil {
					t.Fatal(err)
				}
			}
			l.await("b at its disk", func() bool { return held.Waiting() > 0 })
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			done := make(chan error, 1)
			go func() { done <- a.get().HandOver(short, "b") }()
			time.Sleep(10 * time.Millisecond)
			waits := c.begin(writeReq(9*4096, pattern(4096, 2)))
			if err := <-done; err == nil {
				t.Fatal("handed over although b lacks it")
			}
			cancel()
			if err := <-waits; err != nil {
				t.Fatal(err)
			}
			for i := range int64(5) {
				if err := c.write((20+i)*4096, pattern(4096, 3)); err != nil {
					t.Fatal(err)
				}
			}
			held.Remove()
			if err := a.get().HandOver(t.Context(), "b"); !errors.Is(err, verdict) {
				t.Fatal(err)
			}
			l.same("a", "b")
			a.grant()
			held = b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
			for i := range int64(5) {
				if err := c.write((40+i)*4096, pattern(4096, 3)); err != nil {
					t.Fatal(err)
				}
			}
			held.Remove()
		})
	}
}

// R23, R26: an operation that hangs on the primary's disk is noted as a failure beside the Core. From then on nothing is acknowledged
// that the standby lacks, so what it lacks comes to an end while clients write, and the role is given up.
func TestAsyncStalledPrimaryGivesUpUnderLoad(t *testing.T) {
	l, a, b, _ := formedAsync(t, labConfig{})
	ten := a.serving()
	b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Delay: time.Millisecond})
	load := startLoad(t, ten, 4)
	l.await("the standby to lack something", func() bool { return a.status("b").LagBytes > 64<<10 })
	ten.gate.hold()
	ten.diskFailed(errFault)
	l.await("the role to be given up", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.giveUps) > 0 })
	l.await("the standby to be promoted", func() bool { return l.volume().Primary == "b" })
	load.end()
}

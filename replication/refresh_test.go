package replication

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/heartbeat/cluster"
)

// kernelDisk is what lies under a page cache (a memdev): a flush carries changed pages down to it. When the flush fails,
// the pages stay as they are and count as clean, as Linux does it, and every later flush of that opening fails.
type kernelDisk struct {
	mu      sync.Mutex
	durable []byte
	dirty   map[int64]bool // pages
	failing int            // so many flushes from now on fail
	trap    int64          // a write to this page has the next flush fail; 0: none
	reopens int
	denied  error // of the next attempts to open it anew
}

func newKernelDisk(size int64) *kernelDisk {
	return &kernelDisk{durable: make([]byte, size), dirty: map[int64]bool{}}
}

type openedDisk struct {
	*memdev.Dev
	d      *kernelDisk
	failed error
}

func (d *kernelDisk) open(cache *memdev.Dev) *openedDisk { return &openedDisk{Dev: cache, d: d} }

func (o *openedDisk) touch(off, n int64) {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	for i := off / 4096; i*4096 < off+n; i++ {
		o.d.dirty[i] = true
		if i == o.d.trap && i != 0 {
			o.d.failing, o.d.trap = 1, 0
		}
	}
}

func (o *openedDisk) WriteAt(p []byte, off int64) (int, error) {
	defer o.touch(off, int64(len(p)))
	return o.Dev.WriteAt(p, off)
}

func (o *openedDisk) WriteFUA(p []byte, off int64) (int, error) {
	if n, err := o.WriteAt(p, off); err != nil {
		return n, err
	}
	return len(p), o.Flush()
}

func (o *openedDisk) WriteVAt(segments [][]byte, off int64) (int, error) {
	n, err := o.Dev.WriteVAt(segments, off)
	o.touch(off, int64(n))
	return n, err
}

func (o *openedDisk) Zero(r blockdev.Range, unmap bool) error {
	defer o.touch(r.Off, r.Len)
	return o.Dev.Zero(r, unmap)
}

func (o *openedDisk) Flush() error {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	if o.failed == nil && o.d.failing > 0 {
		o.d.failing--
		o.failed = errFault
		clear(o.d.dirty)
	}
	if o.failed != nil {
		return o.failed
	}
	for i := range o.d.dirty {
		if _, err := o.Dev.ReadAt(o.d.durable[i*4096:(i+1)*4096], i*4096); err != nil {
			return err
		}
	}
	clear(o.d.dirty)
	return nil
}

// Reopen implements blockdev.Reopener.
func (o *openedDisk) Reopen() error {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	o.d.reopens++
	if o.d.denied != nil {
		return o.d.denied
	}
	o.failed = nil
	return nil
}

func (d *kernelDisk) fail(times int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing = times
}

func (d *kernelDisk) failAt(off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trap = off / 4096
}

func (d *kernelDisk) deny(err error) (reopens int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.denied = err
	return d.reopens
}

// quiet reports whether nothing of a stream is on the device.
func (n *labNode) quiet() bool {
	r := n.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recv.Outstanding() == 0 && r.receiving == 0
}

// holds reports whether the disk itself has p at off.
func (d *kernelDisk) holds(p []byte, off int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Equal(d.durable[off:off+int64(len(p))], p)
}

func (n *labNode) has(event string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.events, event)
}

// failedStandby is a lab whose standby wrote a block and failed to flush it: its memory shows what its disk lacks. The
// primary is gone for good.
func failedStandby(t *testing.T) (l *lab, b *labNode, block []byte) {
	t.Helper()
	l = formed(t, labConfig{inline: true, kernel: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	block = pattern(4096, 9)
	if err := errors.Join(c.write(0, pattern(4096, 1)), c.flush()); err != nil {
		t.Fatal(err)
	}
	b.disk.deny(errFault)  // no resync before the primary is gone
	b.disk.failAt(1 << 20) // the first flush behind the write, which may be one of the primary's own
	if err := errors.Join(c.write(1<<20, block), c.flush()); err != nil {
		t.Fatal(err)
	}
	if l.volume().IsMember("b") || b.disk.holds(block, 1<<20) {
		t.Fatal("the standby is a member still, or its disk has the block")
	}
	l.await("the failure to be noted", func() bool { _, f := b.sb.health(); return f })
	a.crash()
	return l, b, block
}

// R20, R23: a person has a replica promoted whose flush failed. Before it serves and before the mark of its failure
// goes, all that it shows is on its disk.
func TestForcedPromotionOfAFailedReplicaWritesItsContentAgain(t *testing.T) {
	l, b, block := failedStandby(t)
	b.disk.deny(nil)
	var early bool
	b.super.intercept(func(what string) error {
		if what == "inconsistent false failed false" {
			early = early || !b.disk.holds(block, 1<<20)
		}
		return nil
	})
	b.grant()
	l.promote("b", cluster.BasisForced)
	l.pass(2 * dropAfter)
	b.get().wake()
	b.serving()
	if early || !b.disk.holds(block, 1<<20) {
		t.Error("it serves, or forgot its failure, before its disk had what it shows")
	}
	if _, f := b.sb.health(); f || !b.has("refresh ended") {
		t.Errorf("failed %t, events %v", f, b.events)
	}
}

// The promotion does not take effect while a write or flush fails again; status says why.
func TestRefreshThatFailsKeepsTheReplicaFromServing(t *testing.T) {
	l, b, block := failedStandby(t)
	b.disk.deny(nil)
	b.disk.fail(1)
	b.grant()
	l.promote("b", cluster.BasisForced)
	l.pass(2 * dropAfter)
	b.get().wake()
	l.await("the refresh to fail", func() bool { return b.has("refresh failed") })
	if rep := b.get().Report(); b.get().Tenure() != nil || !rep.Failed || rep.Doing == "" {
		t.Errorf("serving %v, failed %t, doing %q", b.get().Tenure(), rep.Failed, rep.Doing)
	}
	if b.disk.holds(block, 1<<20) {
		t.Fatal("the flush did not fail")
	}
	l.pass(2 * dropAfter)
	b.get().wake()
	l.await("it to be tried again", func() bool { l.pass(refreshPause); b.get().wake(); return b.get().Tenure() != nil })
	if !b.disk.holds(block, 1<<20) || b.get().Report().Doing != "" {
		t.Error("it serves before its disk has what it shows, or still says what it is at")
	}
}

// A refresh that a crash interrupts begins anew: the mark stays until its end.
func TestRefreshInterruptedByACrashBeginsAnew(t *testing.T) {
	l, b, block := failedStandby(t)
	b.disk.deny(nil)
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	b.grant()
	l.promote("b", cluster.BasisForced)
	l.pass(2 * dropAfter)
	b.get().wake()
	l.await("the refresh to flush", func() bool { return held.Waiting() == 1 })
	b.super.kill()
	held.Remove()
	b.crash()
	b.disk.dirty, b.disk.failing = map[int64]bool{}, 0 // nothing of it came down
	copy(b.disk.durable[1<<20:], make([]byte, 4096))
	b.start()
	if rep := b.get().Report(); !rep.Failed {
		t.Fatal("the new process does not know of the failure")
	}
	l.promote("b", cluster.BasisForced)
	b.serving()
	if !b.disk.holds(block, 1<<20) {
		t.Error("it serves before its disk has what it shows")
	}
}

// Blocks that cannot be read do not keep what can from being saved.
func TestRefreshPassesOverUnreadableBlocks(t *testing.T) {
	l, b, block := failedStandby(t)
	b.disk.deny(nil)
	b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Range: blockdev.Range{Off: 0, Len: 4096}, Err: errFault})
	b.grant()
	l.promote("b", cluster.BasisForced)
	l.pass(2 * dropAfter)
	b.get().wake()
	c := b.serving().client(t)
	if !b.disk.holds(block, 1<<20) {
		t.Error("what can be read was not written again")
	}
	if err := c.do(&blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Len: 4096}, Buf: blockdev.NewBuf(4096)}); !errors.Is(err, errFault) {
		t.Errorf("reading the unreadable block: %v", err)
	}
}

// R23, D90: a failed flush is final for its opening, so the backing is opened anew before a resync, in the same process.
func TestStandbyIsResyncedAfterAFailedFlushWithoutARestart(t *testing.T) {
	for _, inline := range []bool{true, false} {
		l := formed(t, labConfig{inline: inline, kernel: true}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		ten := a.serving()
		a.connected("b")
		w := startLoad(t, ten, 3)
		w.more(l, 50)
		b.disk.fail(1)
		l.await("the standby to be dropped", func() bool { return l.drops() > 0 })
		l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
		w.more(l, 50)
		w.end()
		l.same("a", "b")
		if b.disk.deny(nil) == 0 || b.process != 1 {
			t.Error("it was not opened anew")
		}
		if _, f := b.sb.health(); f {
			t.Error("still marked as failed")
		}
	}
}

// A primary that handed over for its failed flush comes back as a standby without a restart.
func TestFormerPrimaryIsResyncedAfterAFailedFlushWithoutARestart(t *testing.T) {
	l := formed(t, labConfig{inline: true, kernel: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	a.disk.fail(1)
	if err := c.flush(); !errors.Is(err, errCut) {
		t.Fatalf("flush: %v", err)
	}
	b.serving()
	l.await("the failed one to be admitted", func() bool { return l.volume().IsMember("a") })
	l.same("a", "b")
	if !a.disk.holds(pattern(4096, 1), 0) {
		t.Error("a member's disk lacks what was flushed")
	}
}

// What cannot be opened anew takes no stream, and says why; when it can, it goes on.
func TestBackingThatCannotBeOpenedAnewTakesNoStream(t *testing.T) {
	l := formed(t, labConfig{inline: true, kernel: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	b.disk.deny(errFault)
	b.disk.fail(1)
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	l.await("an attempt to open it", func() bool { return b.get().Report().Doing != "" })
	for range 20 {
		time.Sleep(5 * time.Millisecond) // the primary greets it again and again
		if b.stream() != 0 {
			t.Fatal("it takes a stream")
		}
	}
	b.disk.deny(nil)
	l.await("the standby to be admitted", func() bool {
		l.clock.Add(int64(dropAfter))
		b.get().wake()
		return l.volume().IsMember("b")
	})
	l.same("a", "b")
}

// The last copy, whose own tenure found its disk failing: a person has the same process promoted anew.
func TestForcedPromotionOfTheFailedPrimaryItself(t *testing.T) {
	l := newLab(t, labConfig{inline: true, kernel: true}, "a", "b")
	a := l.nodes["a"]
	l.nodes["b"].cable.cut()
	l.form("a")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	c := a.serving().client(t)
	block := pattern(4096, 5)
	if err := c.write(1<<20, block); err != nil {
		t.Fatal(err)
	}
	a.disk.fail(1)
	if err := c.flush(); !errors.Is(err, errFault) {
		t.Fatalf("flush: %v", err)
	}
	l.promote("a", cluster.BasisForced)
	l.await("the new epoch to be served", func() bool { t := a.get().Tenure(); return t != nil && t.epoch == 2 && t.gate.try() })
	if !a.disk.holds(block, 1<<20) {
		t.Error("it serves before its disk has what it shows")
	}
	if err := a.serving().client(t).flush(); err != nil {
		t.Errorf("flush in the new epoch: %v", err)
	}
}

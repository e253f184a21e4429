package replication

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

func fileSize(t *testing.T, fd int) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// The status says that the spool fails while it fails, also soon after it worked for a moment.
func TestStatusOfASpoolThatFailsNowAndThen(t *testing.T) {
	_, a, _, _ := formedAsync(t, withSpool(t))
	s := a.serving().spool
	now := cluster.Instant(0).Add(time.Hour)
	s.tell(now, errors.New("input/output error"), keptText)
	s.tell(now.Add(time.Second), nil, keptText)
	for i := 2; i < 59; i++ {
		s.tell(now.Add(time.Duration(i)*time.Second), errors.New("input/output error"), keptText)
		if s.reason(true) == "" {
			t.Fatalf("%d s: it fails, and status has no reason", i)
		}
	}
}

// R28: a spool that hangs, and a standby that follows more than a window behind: what is queued for the spool's disk is to be bounded by Most.
func TestWhatWaitsForAHungSpoolIsBounded(t *testing.T) {
	conf := withSpool(t)
	hang := make(chan struct{})
	conf.spool.wait = func() { <-hang }
	l, a, b, c := formedAsync(t, conf)
	defer close(hang)
	queued := func() (n int64) {
		s := a.serving().spool
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, o := range s.writes {
			n += o.Range.Len
		}
		return n
	}
	for round := range int64(40) {
		held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
		var told atomic.Int64
		var writes sync.WaitGroup
		for i := range int64(12) { // 192 KiB of at most 256 KiB
			w := c.begin(writeReq((round*12+i)%100*16384, pattern(16384, byte(1+i))))
			writes.Go(func() {
				if err := <-w; err != nil {
					t.Error(err)
				}
				told.Add(1)
			})
		}
		l.await("all to be told of, or no more to be", func() bool { return told.Load() == 12 || a.spooling().Memory+16384 > 256<<10 })
		held.Remove() // what could not be told of early is when the standby has it
		writes.Wait()
		l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	}
	if used := a.get().cfg.Room.used.Load(); used < queued() {
		t.Errorf("the node counts %d bytes, and %d wait for the disk of the spool", used, queued())
	}
	if q := queued(); q == 0 {
		t.Error("nothing waits: the test does not reach what it is for")
	} else if q > 256<<10 {
		t.Errorf("%d bytes of memory wait for the spool, of at most %d", q, 256<<10)
	}
}

// The file shrinks when what was in it is given back.
func TestSpoolGivesItsRoomBack(t *testing.T) {
	l, a, b, c := formedAsync(t, withSpool(t))
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	burst(t, c, 3000)
	l.await("most of it to be in the spool", func() bool { s := a.spooling(); return s.Bytes >= 40<<20 && s.Memory <= 256<<10 })
	held.Remove()
	l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	l.await("all given back", func() bool { return a.serving().spool.file.Used() == 0 })
	for range 20 {
		l.pass(2 * time.Second)
		if err := c.write(0, pattern(16384, 3)); err != nil {
			t.Fatal(err)
		}
	}
	l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	time.Sleep(100 * time.Millisecond)
	if size := fileSize(t, a.serving().spool.file.Fd()); size > 0 {
		t.Errorf("the spool is empty (used %d), and its file keeps %d bytes of disk", a.serving().spool.file.Used(), size)
	}
}

// A spool that failed once, and that nobody needs any more, is not failed for ever.
func TestSpoolThatNobodyNeedsHasNotFailed(t *testing.T) {
	conf := withSpool(t)
	if err := os.Remove(conf.spool.Dir); err != nil {
		t.Fatal(err)
	}
	l, a, b, c := formedAsync(t, conf)
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	for i := range int64(14) {
		if err := c.write(i*16384, pattern(16384, byte(1+i))); err != nil {
			t.Fatal(err)
		}
	}
	l.await("it to be told", func() bool { n, _ := a.happened("spool failed"); return n == 1 })
	if err := os.Mkdir(conf.spool.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	held.Remove()
	l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	for i := range int64(100) { // a standby that follows
		l.pass(2 * time.Second)
		if err := c.write(i*16384, pattern(16384, byte(1+i))); err != nil {
			t.Fatal(err)
		}
		l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	}
	s, _ := a.get().Serving()
	if s.Spool.Reason != "" {
		t.Errorf("200 s later, with no lag: %+v, drops %d", s.Spool, l.drops())
	}
}

// What comes back from spools is beside maxEarlyBytes (limits.md): other volumes' writers are not held by it, and no standby dropped.
func TestWhatComesBackFromSpoolsHoldsNoWriter(t *testing.T) {
	conf := withSpool(t)
	conf.bound.Patience = 2 * dropAfter
	l, a, b, c := formedAsync(t, conf)
	room := a.get().cfg.Room
	n := 0
	for room.Back(16<<20, false) { // 20 windows of other volumes, after a line was back
		n++
	}
	t.Logf("%d windows of 16 MiB, %d bytes", n, room.used.Load())
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	defer held.Remove()
	w := c.begin(writeReq(0, pattern(4096, 1)))
	time.Sleep(50 * time.Millisecond)
	if len(w) == 0 {
		t.Errorf("a write of 4 KiB waits, with a bound of 1 GiB of which nothing is used: %+v %+v", a.status("b"), a.spooling())
	}
	l.pass(4 * dropAfter)
	time.Sleep(50 * time.Millisecond)
	l.await("the write", func() bool { return len(w) > 0 })
	if l.drops() != 0 {
		t.Errorf("and %d standbys dropped", l.drops())
	}
}

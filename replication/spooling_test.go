package replication

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
)

// vast is a bound that asks for a spool.
var vast = primary.Bound{Bytes: 1 << 30, Time: 24 * time.Hour, Patience: 24 * time.Hour}

func withSpool(t *testing.T) labConfig {
	return labConfig{bound: vast, spool: SpoolConfig{Dir: t.TempDir(), Sizes: primary.SpoolSizes{Window: 64 << 10, From: 64 << 10, Most: 256 << 10}}}
}

func (n *labNode) spooling() primary.Spooling {
	t := n.serving()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.core.Spooling()
}

// happened counts the events of a kind, and has the text of the last.
func (n *labNode) happened(kind string) (count int, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.texts {
		if strings.Contains(e, kind) {
			count, text = count+1, e
		}
	}
	return count, text
}

// burst writes n blocks one after the other; over and over the same ones, so that an order that is broken leaves an older one.
func burst(t *testing.T, c *clientConn, n int64) {
	t.Helper()
	for i := range n {
		if err := c.write(i%100*16384, pattern(16384, byte(1+i%251))); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			if err := c.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A burst of many times what memory holds is acknowledged while the standby takes nothing; then it has all of it, in order.
func TestSpoolTakesABurstAndGivesItBackInOrder(t *testing.T) {
	for _, inline := range []bool{false, true} {
		conf := withSpool(t)
		conf.inline = inline
		l, a, b, c := formedAsync(t, conf)
		held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
		burst(t, c, 700)
		l.await("most of it to be in the spool", func() bool { s := a.spooling(); return s.Bytes >= 9<<20 && s.Memory <= 256<<10 })
		if used := a.get().cfg.Room.used.Load(); used > 1<<20+700*1024 {
			t.Errorf("%d bytes of memory are counted", used)
		}
		if p := a.status("b"); p.LagBytes != 700*16384 {
			t.Errorf("%+v", p)
		}
		held.Remove()
		l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
		l.same("a", "b")
		l.await("all to be given back", func() bool {
			return a.get().cfg.Room.used.Load() == 0 && a.spooling() == primary.Spooling{} && a.serving().spool.file.Used() == 0
		})
		if l.drops() != 0 {
			t.Errorf("%d drops", l.drops())
		}
		if n, text := a.happened("spool"); n != 0 {
			t.Errorf("it is told: %s", text)
		}
	}
}

// A standby that goes and comes back within the bound is replayed out of the spool.
func TestSpoolOutlivesAStreamThatBreaks(t *testing.T) {
	l, a, b, c := formedAsync(t, withSpool(t))
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	burst(t, c, 300)
	b.cable.cut()
	l.await("the stream to be over", func() bool { return !a.status("b").Connected })
	burst(t, c, 300)
	held.Remove()
	b.cable.mend()
	l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	l.same("a", "b")
	if l.drops() != 0 {
		t.Errorf("%d drops", l.drops())
	}
}

// Without a place for it writers wait at the limit of memory, an operator is told, and the volume goes on when the standby does.
func TestSpoolThatCannotBeMadeFailsNoVolume(t *testing.T) {
	conf := withSpool(t)
	if err := os.Remove(conf.spool.Dir); err != nil {
		t.Fatal(err)
	}
	l, a, b, c := formedAsync(t, conf)
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	var all []<-chan error
	for i := range int64(40) {
		all = append(all, c.begin(writeReq(i*16384, pattern(16384, byte(1+i)))))
	}
	l.await("it to be told", func() bool { n, _ := a.happened("spool failed"); return n == 1 })
	l.await("writers to wait", func() bool { return a.status("b").AtBound })
	time.Sleep(20 * time.Millisecond)
	told := 0
	for _, w := range all {
		told += len(w)
	}
	if told*16384 > 256<<10 {
		t.Errorf("%d bytes are acknowledged, and nothing holds them", told*16384)
	}
	if _, text := a.happened("spool failed"); !strings.Contains(text, conf.spool.Dir) && !strings.Contains(text, "no such file") || !strings.Contains(text, "async { spool") {
		t.Errorf("it is told: %s", text)
	}
	if err := os.Mkdir(conf.spool.Dir, 0o700); err != nil { // an operator mends it
		t.Fatal(err)
	}
	l.pass(2 * time.Second)
	for _, w := range all {
		if err := <-w; err != nil {
			t.Fatal(err)
		}
	}
	l.await("it to be told", func() bool { n, _ := a.happened("spool works again"); return n == 1 })
	held.Remove()
	l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
	l.same("a", "b")
}

// R13, R21: data that the spool's disk changed is never sent: the standby stays a prefix, leaves, and is resynced.
func TestSpoolThatLosesDataHasTheStandbyResynced(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s *spooler){
		"changed": func(t *testing.T, s *spooler) {
			if _, err := unix.Pwrite(s.file.Fd(), []byte("spoilt"), 0); err != nil {
				t.Fatal(err)
			}
		},
		"cut off": func(t *testing.T, s *spooler) {
			if err := unix.Ftruncate(s.file.Fd(), 0); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, a, b, c := formedAsync(t, withSpool(t))
			held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
			burst(t, c, 300)
			l.await("most of it to be in the spool", func() bool { return a.spooling().Bytes >= 4<<20 })
			spoil(t, a.serving().spool)
			var why string
			l.decide(func(cmd cluster.Command) error {
				if cmd.Drop != nil {
					why = cmd.Drop.Reason
				}
				return nil
			})
			held.Remove()
			l.await("the standby to leave", func() bool { return l.drops() > 0 })
			if !strings.Contains(why, "spool") {
				t.Errorf("dropped for %q", why)
			}
			l.await("it to be told", func() bool { n, _ := a.happened("spool failed"); return n >= 1 })
			l.await("it to be back", func() bool { return l.volume().IsMember("b") && a.status("b").LagBytes == 0 })
			burst(t, c, 10)
			l.await("the standby to have all", func() bool { return a.status("b").LagBytes == 0 })
			l.same("a", "b")
		})
	}
}

// Two standbys share one spool: data leaves it when both have it, and each gets all in its order.
func TestSpoolIsSharedByStandbysThatLag(t *testing.T) {
	conf := withSpool(t)
	conf.mode = cluster.ModeAsync
	l := formed(t, conf, "a", "b", "d")
	a, b, d := l.nodes["a"], l.nodes["b"], l.nodes["d"]
	c := a.serving().client(t)
	a.settled("b")
	a.settled("d")
	atB := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	atD := d.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	burst(t, c, 300)
	l.await("most of it to be in the spool", func() bool { return a.spooling().Bytes >= 4<<20 })
	atB.Remove()
	l.await("one to have all", func() bool { return a.status("b").LagBytes == 0 })
	if s := a.spooling(); s.Bytes < 4<<20 || a.status("d").LagBytes != 300*16384 {
		t.Errorf("%+v, %+v", s, a.status("d"))
	}
	if used := a.get().cfg.Room.used.Load(); used > 1<<20+300*1024 {
		t.Errorf("%d bytes of memory are counted", used)
	}
	atD.Remove()
	l.await("both to have all", func() bool { return a.status("d").LagBytes == 0 })
	l.same("a", "b", "d")
	l.await("all to be given back", func() bool { return a.spooling() == primary.Spooling{} && a.get().cfg.Room.used.Load() == 0 })
}

// A disk that hangs holds writers for the patience, then the standby leaves and they go on; the end of the tenure does not wait for it.
func TestSpoolThatHangsFailsNoVolume(t *testing.T) {
	conf := withSpool(t)
	conf.bound.Patience = 2 * dropAfter
	hang, at := make(chan struct{}), make(chan struct{}, 1000)
	conf.spool.wait = func() { at <- struct{}{}; <-hang }
	l, a, b, c := formedAsync(t, conf)
	defer close(hang)
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	defer held.Remove()
	var all []<-chan error
	for i := range int64(40) {
		all = append(all, c.begin(writeReq(i*16384, pattern(16384, byte(1+i)))))
	}
	<-at
	l.await("writers to wait", func() bool { return a.status("b").AtBound })
	l.pass(dropAfter)
	if l.drops() != 0 {
		t.Fatal("dropped before the patience")
	}
	l.pass(4 * dropAfter)
	l.await("the standby to leave", func() bool { return !l.volume().IsMember("b") })
	for _, w := range all {
		if err := <-w; err != nil {
			t.Fatal(err)
		}
	}
	l.await("it to be told", func() bool {
		_, text := a.happened("spool failed")
		return strings.Contains(text, "has not answered")
	})
	begin := time.Now()
	a.stop()
	if err := <-a.done; err != nil {
		t.Error(err)
	}
	a.done <- nil
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("the end took %v", d)
	}
}

// A burst of 64 MiB to a standby that takes nothing: what the spool costs the writer. Expected: little more than the copy to the
// page cache; allocations are of operations, as everywhere in async.
func BenchmarkSpoolBurst(b *testing.B) {
	for _, size := range []int64{4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			l, _, s, c := formedAsync(b, labConfig{inline: true, bound: vast, spool: SpoolConfig{Dir: b.TempDir()}})
			_ = l
			held := s.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
			buf := pattern(int(size), 7)
			b.SetBytes(64 << 20)
			b.ReportAllocs()
			for b.Loop() {
				for i := range (64 << 20) / size {
					if err := c.write(i*size%volumeSize, buf); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				held.Remove()
				l.await("the standby to have all", func() bool { return l.nodes["a"].status("b").LagBytes == 0 })
				held = s.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
				b.StartTimer()
			}
			held.Remove()
		})
	}
}

package replication

import (
	"bytes"
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
)

// A block of the primary's disk cannot be read: the resync copies everything else, says what is missing, keeps the
// replica out of the set, and ends when the block can be read again (faults.md D93).
func TestD93ResyncGoesOnAroundUnreadableBlocks(t *testing.T) {
	for _, failed := range []bool{false, true} { // a target whose own disk had failed is copied whole
		l := formed(t, labConfig{inline: true}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		c := a.serving().client(t)
		a.connected("b")
		last := int64(volumeSize - 4096)
		for _, off := range []int64{0, 8192, 1 << 20, last} {
			if err := c.write(off, pattern(4096, byte(off>>12)+1)); err != nil {
				t.Fatal(err)
			}
		}
		b.cable.cut()
		l.await("the standby to be dropped", func() bool { l.pass(2 * dropAfter); return l.drops() > 0 })
		for _, off := range []int64{0, 8192, 1 << 20, last} {
			if err := c.write(off, pattern(4096, byte(off>>12)+5)); err != nil {
				t.Fatal(err)
			}
		}
		if failed {
			if err := b.super.SetHealth(false, true); err != nil {
				t.Fatal(err)
			}
		}
		bad := a.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Range: blockdev.Range{Off: 8192, Len: 1}, Err: errFault})
		b.cable.mend()
		holds := func(off int64) bool {
			p := make([]byte, 4096)
			_, err := b.mem.ReadAt(p, off)
			return err == nil && bytes.Equal(p, pattern(4096, byte(off>>12)+5))
		}
		l.await("everything else to be copied", func() bool { return holds(0) && holds(1<<20) && holds(last) })
		var text string
		l.await("the block to be reported", func() bool {
			s, _ := a.get().Serving()
			text = s.Peers[0].Blocked
			return text != "" && s.Peers[0].RemainingBytes == 4096
		})
		if !strings.Contains(text, "[8192,+4096)") || !a.has("unreadable blocks") {
			t.Errorf("status %q, events %v", text, a.events)
		}
		hits := bad.Hits()
		for range 3 {
			l.pass(dropAfter / 8) // well below a minute
			b.get().wake()
		}
		if l.volume().IsMember("b") || holds(8192) {
			t.Fatal("it is a member, or has the block")
		}
		if n := bad.Hits(); n != hits {
			t.Errorf("the block was read %d times again at once", n-hits)
		}
		bad.Remove()
		l.awaitPassing("the standby to be admitted", dropAfter/4, func() bool { return l.volume().IsMember("b") })
		l.same("a", "b")
		if s, _ := a.get().Serving(); s.Peers[0].Blocked != "" {
			t.Errorf("still says %q", s.Peers[0].Blocked)
		}
	}
}

// What the target cannot read is written: that may mend it, and is what it is to hold in any case.
func TestResyncWritesWhatTheTargetCannotRead(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	b.cable.cut()
	l.await("the standby to be dropped", func() bool { l.pass(2 * dropAfter); return l.drops() > 0 })
	if err := c.write(4096, pattern(4096, 3)); err != nil {
		t.Fatal(err)
	}
	bad := b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Range: blockdev.Range{Off: 4096, Len: 1}, Err: errFault})
	b.cable.mend()
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
	bad.Remove()
	l.same("a", "b")
}

func TestUnreadableRangesAreBoundedAndForgotten(t *testing.T) {
	var u unreadable
	chunk := func(i int64) blockdev.Range { return blockdev.Range{Off: i << 20, Len: 1 << 20} }
	block := func(i int64) []blockdev.Range { return []blockdev.Range{{Off: i << 20, Len: 4096}} }
	for i := range int64(1000) {
		if !u.replace(chunk(i), block(i)) {
			t.Fatalf("chunk %d is no news", i)
		}
	}
	if len(u.ranges) != maxUnreadable || !strings.Contains(u.text(), "and more") {
		t.Errorf("%d ranges, %q", len(u.ranges), u.text())
	}
	if u.replace(chunk(3), block(3)) {
		t.Error("the same again is news")
	}
	for i := range int64(1000) {
		u.replace(chunk(i), nil)
	}
	if u.text() != "" {
		t.Errorf("left %q", u.text())
	}
}

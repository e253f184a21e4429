package replication

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

const marksVolume = 64 << 20 // 16 regions

// R14: a region is marked on stable storage before anything in it is written, on each replica before its own write.
func TestNothingIsWrittenBeforeItsMarkIsDurable(t *testing.T) {
	for _, inline := range []bool{true, false} {
		for _, slow := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("inline=%t, table of %s hangs", inline, slow), func(t *testing.T) { holdMark(t, inline, slow, false) })
			t.Run(fmt.Sprintf("zeroes, inline=%t, table of %s hangs", inline, slow), func(t *testing.T) { holdMark(t, inline, slow, true) })
		}
	}
}

func holdMark(t *testing.T, inline bool, slow string, zero bool) {
	l := formed(t, labConfig{inline: inline, size: marksVolume}, "a", "b")
	a, n := l.nodes["a"], l.nodes[slow]
	ten := a.serving()
	a.connected("b")
	c := ten.client(t)
	off, p := int64(17<<20), pattern(4096, 7)
	req := writeReq(off, p)
	if zero {
		for _, n := range l.nodes {
			if _, err := n.mem.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
		}
		p, req = make([]byte, 4096), &blockdev.Request{Op: blockdev.OpZero, Range: blockdev.Range{Off: off, Len: 4096}, Unmap: true}
	}
	hang := n.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	answer := c.begin(req)
	l.await("the mark to be on its way", func() bool { return hang.Waiting() > 0 })
	other := map[string]string{"a": "b", "b": "a"}[slow]
	l.await("the other to have written it", func() bool { return bytes.Equal(l.nodes[other].at(off, 4096), p) })
	if !l.nodes[other].stored(slow, off) {
		t.Errorf("%s has written it unmarked", other)
	}
	if bytes.Equal(n.at(off, 4096), p) {
		t.Errorf("%s has written it before its mark is durable", slow)
	}
	select {
	case err := <-answer:
		t.Fatalf("answered (%v) although one replica has not written it", err)
	default:
	}
	hang.Release()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(n.at(off, 4096), p) || !n.stored(other, off) {
		t.Errorf("%s: not written, or not marked", slow)
	}
}

// at is what the node's operating system has there.
func (n *labNode) at(off, size int64) []byte {
	p := make([]byte, size)
	if _, err := n.mem.ReadAt(p, off); err != nil {
		n.l.t.Fatal(err)
	}
	return p
}

// R23: a mark that cannot be made is a failed write: a standby is dropped for it, a primary hands over.
func TestAMarkThatFailsIsAFailedWrite(t *testing.T) {
	t.Run("standby", func(t *testing.T) {
		l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		ten := a.serving()
		a.connected("b")
		b.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Err: errFault})
		if err := ten.client(t).write(33<<20, pattern(4096, 1)); err != nil {
			t.Fatal(err)
		}
		if l.volume().IsMember("b") {
			t.Error("it is a member without the write")
		}
		if _, failed := b.sb.health(); !failed {
			t.Error("the failure is not noted")
		}
	})
	t.Run("primary", func(t *testing.T) {
		l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		ten := a.serving()
		a.connected("b")
		a.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Err: errFault})
		answer := ten.client(t).begin(writeReq(33<<20, pattern(4096, 1)))
		l.await("the role to move", func() bool { return l.volume().Primary == "b" })
		if err := <-answer; !errors.Is(err, errCut) {
			t.Errorf("answered: %v", err)
		}
		if l.volume().IsMember("a") {
			t.Error("it is still a member")
		}
		b.serving()
	})
}

// faults.md D92: a map that could not be written is written anew when its disk works again, without a restart: a standby is
// resynced, and so is a primary that handed over; one that is alone serves its clients again. What was marked since is durable.
func TestD92MapOfMarksThatFailedIsTakenAgain(t *testing.T) {
	for who, rule := range map[string]faultdev.Rule{
		"a": {Op: blockdev.OpFlush, Err: errFault},
		"b": {Op: blockdev.OpWrite, Err: blockdev.ErrNoSpace},
	} {
		l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b")
		ill := l.nodes[who]
		c := l.nodes["a"].serving().client(t)
		l.nodes["a"].connected("b")
		bad := ill.tableFaults.Add(rule)
		answer := c.begin(writeReq(33<<20, pattern(4096, 1)))
		l.await("it to be no member", func() bool { return !l.volume().IsMember(who) })
		<-answer
		l.await("an event", func() bool { return ill.has("disk failed") })
		l.awaitPassing("it to say what is wrong", dropAfter/50, func() bool { return strings.Contains(ill.get().Report().Doing, "marked") })
		bad.Remove()
		l.awaitPassing("it to be a member again", refreshPause, func() bool { return l.volume().IsMember(who) })
		c = l.nodes[l.volume().Primary].serving().client(t)
		if err := c.write(47<<20, pattern(4096, 2)); err != nil {
			t.Fatal(err)
		}
		if !ill.stored(l.other(who), 47<<20) || ill.get().Report().Doing != "" {
			t.Errorf("%s: it is not marked; doing %q", who, ill.get().Report().Doing)
		}
		l.same("a", "b")
	}
}

// The same of a primary that is alone: it has nobody to hand over to.
func TestD92LonePrimaryMarksAgainWhenItCan(t *testing.T) {
	l := newLab(t, labConfig{inline: true, size: marksVolume}, "a", "b")
	a := l.nodes["a"]
	l.nodes["b"].cable.cut()
	l.form("a")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	c := a.serving().client(t)
	bad := a.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Err: errFault})
	if err := c.write(33<<20, pattern(4096, 1)); err == nil {
		t.Fatal("written without a mark")
	}
	bad.Remove()
	l.awaitPassing("a write to be possible", refreshPause, func() bool { a.grant(); return c.write(47<<20, pattern(4096, 2)) == nil })
	if !a.stored("b", 47<<20) {
		t.Error("it is not marked")
	}
}

func (l *lab) other(node string) string {
	if node == "a" {
		return "b"
	}
	return "a"
}

// What is acknowledged is marked on both sides until somebody knows better, also after the power of both is lost.
func TestMarksSurviveThePowerLossOfBoth(t *testing.T) {
	l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	ten := a.serving()
	a.connected("b")
	c := ten.client(t)
	for i := range int64(4) {
		if err := c.write(i*13<<20, pattern(4096, byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	a.power(nil)
	b.power(nil)
	for i := range int64(4) {
		if !a.stored("b", i*13<<20) || !b.stored("a", i*13<<20) {
			t.Errorf("the write at %d is not marked on both", i*13<<20)
		}
	}
	if a.stored("b", 60<<20) {
		t.Error("what was never written is marked")
	}
	a.start()
	b.start()
}

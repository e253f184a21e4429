package replication

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

// settled waits until nothing may differ that could be answered in two ways.
func (n *labNode) settled(to string) {
	n.l.t.Helper()
	n.connected(to)
	n.l.await("the members to be settled", func() bool {
		t := n.get().Tenure()
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.core.UnsettledBytes() == 0
	})
}

// weak makes reads of a byte fail, until the rule is removed.
func (n *labNode) weak(off int64) *faultdev.Handle {
	return n.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Range: blockdev.Range{Off: off, Len: 1}, Err: errFault})
}

// faults.md D88: a block that the primary cannot read comes from the member, the client sees no error, the role stays, and
// the block is written anew on the primary's own disk, marked and all.
func TestD88UnreadableBlockIsReadAtTheMemberAndWrittenAnew(t *testing.T) {
	for _, inline := range []bool{false, true} {
		l := formed(t, labConfig{inline: inline}, "a", "b")
		a := l.nodes["a"]
		c := a.serving().client(t)
		a.settled("b")
		want := pattern(12288, 7)
		if err := c.write(4096, want); err != nil {
			t.Fatal(err)
		}
		bad := a.weak(8192)
		if _, err := a.mem.WriteAt(pattern(4096, 0xee), 8192); err != nil { // what is there now is not what was written
			t.Fatal(err)
		}
		got, err := c.read(4608, 11000) // begins and ends within blocks
		if err != nil || !bytes.Equal(got, want[:11000]) {
			t.Fatalf("inline %t: read %v, content right: %t", inline, err, bytes.Equal(got, want[:11000]))
		}
		if bad.Hits() == 0 {
			t.Fatal("the fault did not bite")
		}
		bad.Remove()
		if f := a.get().Figures(); f.ReadRepairs != 1 || !a.has("read mended") {
			t.Errorf("%d repairs, events %v", f.ReadRepairs, a.events)
		}
		if got := a.content()[4096:16384]; !bytes.Equal(got, want) {
			t.Error("it was not written anew")
		}
		if !a.stored("b", 8192) {
			t.Error("it was written without a mark (R14)")
		}
		if v := l.volume(); v.Epoch != 1 || !v.IsMember("b") || len(a.giveUps) > 0 {
			t.Errorf("epoch %d, members %v, give-ups %v", v.Epoch, v.MemberNames(), a.giveUps)
		}
		if _, failed := a.sb.health(); failed {
			t.Error("the disk counts as failed")
		}
	}
}

// told is how many events of a kind the node has.
func (n *labNode) told(kind string) (times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e == kind {
			times++
		}
	}
	return times
}

// One event in a minute, with the count; the metric has them all.
func TestMendsAreToldOfOnceInAWhile(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	c := a.serving().client(t)
	a.settled("b")
	defer a.weak(0).Remove()
	for range 20 {
		if _, err := c.read(0, 4096); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.told("read mended"); n != 1 {
		t.Errorf("%d events", n)
	}
	l.clock.Add(int64(2 * mendEvery))
	if _, err := c.read(0, 4096); err != nil {
		t.Fatal(err)
	}
	if n, f := a.told("read mended"), a.get().Figures(); n != 2 || f.ReadRepairs != 21 {
		t.Errorf("%d events, %d mends", n, f.ReadRepairs)
	}
}

// faults.md D88: a primary that is alone tells its client what it cannot read, and an operator likewise, once in a minute.
func TestD88ReadsThatNobodyCanAnswerAreToldOfOnceInAWhile(t *testing.T) {
	l := newLab(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	l.nodes["b"].cable.cut()
	l.form("a")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	c := a.serving().client(t)
	bad := a.weak(0)
	for _, want := range []int{1, 1, 2} {
		if want == 2 {
			l.clock.Add(int64(2 * mendEvery))
			a.grant()
		}
		if _, err := c.read(0, 4096); !errors.Is(err, errFault) {
			t.Fatalf("the read ended with %v", err)
		}
		if n := a.told("read failed"); n != want {
			t.Errorf("%d events, want %d", n, want)
		}
	}
	bad.Remove()
	if _, err := c.read(0, 4096); err != nil {
		t.Error(err)
	}
	if _, failed := a.sb.health(); failed || a.told("disk failed") > 0 {
		t.Error("the disk counts as failed")
	}
}

// A member that cannot read it either: the role is handed on, and the client hears nothing of the error.
func TestD88BlockThatNobodyCanReadHandsOver(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.settled("b")
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	defer a.weak(0).Remove()
	weak := b.weak(0)
	if _, err := c.read(0, 4096); !errors.Is(err, errCut) {
		t.Fatalf("answered %v", err)
	}
	if weak.Hits() == 0 {
		t.Error("the member was not asked")
	}
	weak.Remove()
	if p, err := b.serving().client(t).read(0, 4096); err != nil || !bytes.Equal(p, pattern(4096, 1)) {
		t.Errorf("at the next primary: %v", err)
	}
}

// The only member is gone: it is dropped first, then the client is told that this one block cannot be read. The role stays, the
// disk does not count as failed, and everything else goes on.
func TestD88SilentMemberIsDroppedAndTheReadAloneFails(t *testing.T) {
	for _, inline := range []bool{false, true} {
		l := formed(t, labConfig{inline: inline}, "a", "b")
		a := l.nodes["a"]
		c := a.serving().client(t)
		a.settled("b")
		l.nodes["b"].cable.cut()
		bad := a.weak(0)
		read := c.begin(&blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Len: 4096}, Buf: blockdev.NewBuf(4096)})
		write := c.begin(writeReq(8192, pattern(4096, 1)))
		l.await("the member to be dropped", func() bool { l.pass(dropAfter / 4); return l.drops() > 0 })
		if err := <-read; !errors.Is(err, errFault) {
			t.Errorf("inline %t: the read ended with %v", inline, err)
		}
		if err := <-write; err != nil {
			t.Error(err)
		}
		if err := c.write(0, pattern(4096, 2)); err != nil {
			t.Error(err)
		}
		bad.Remove()
		if p, err := c.read(0, 4096); err != nil || !bytes.Equal(p, pattern(4096, 2)) {
			t.Errorf("what was written after it is not there: %v", err)
		}
		if _, failed := a.sb.health(); failed || len(a.giveUps) > 0 {
			t.Errorf("the disk counts as failed, or the role was given up: %v", a.giveUps)
		}
	}
}

// R23: a disk that does not take the block when it is written anew is given up like any that fails a write.
func TestD88DiskThatCannotBeMendedHandsOver(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.settled("b")
	defer a.weak(0).Remove()
	a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Err: errFault})
	if _, err := c.read(0, 4096); !errors.Is(err, errCut) {
		t.Fatalf("answered %v", err)
	}
	if _, f := a.sb.health(); !f {
		t.Error("the failure is not noted")
	}
	if _, err := b.serving().client(t).read(0, 4096); err != nil {
		t.Fatal(err)
	}
}

// More than a member is asked for at a time comes in pieces; a disk of which too much cannot be read is given up.
func TestLongReadIsMendedInPieces(t *testing.T) {
	l := formed(t, labConfig{size: 16 << 20}, "a", "b")
	a := l.nodes["a"]
	c := a.serving().client(t)
	a.settled("b")
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(i >> 9)
	}
	if err := c.write(1<<20, want); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{1 << 20, 2<<20 + 5000, 4<<20 - 1} {
		defer a.weak(off).Remove()
	}
	got, err := c.read(1<<20, int64(len(want)))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %v, content right: %t", err, bytes.Equal(got, want))
	}
	if f := a.get().Figures(); f.ReadRepairs != 3 {
		t.Errorf("%d mends", f.ReadRepairs)
	}
	all := a.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Err: errFault})
	defer all.Remove()
	if _, err := c.read(0, 16<<20); !errors.Is(err, errCut) {
		t.Errorf("a disk that reads nothing at all: %v", err)
	}
}

// Mends under load, with blocks that go bad again and again and streams that break: what is read is what was written last,
// and in the end the replicas are the same.
func TestMendsUnderLoadKeepTheOrder(t *testing.T) {
	l := formed(t, labConfig{}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	a.settled("b")
	load := startLoad(t, ten, 3)
	c := ten.client(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	own := int64(loadArea) // a block that nobody else writes
	for i := range 60 {
		bad := a.weak(rnd.Int64N(loadArea + 4096))
		if err := c.write(own, pattern(4096, byte(i))); err != nil {
			t.Fatal(err)
		}
		w := c.begin(writeReq(own, pattern(4096, byte(i+1))))
		r := a.weak(own)
		p, err := c.read(own, 4096)
		if err != nil || !bytes.Equal(p, pattern(4096, byte(i))) && !bytes.Equal(p, pattern(4096, byte(i+1))) {
			t.Fatalf("round %d: read %v, %d", i, err, p[0])
		}
		if err := <-w; err != nil {
			t.Fatal(err)
		}
		r.Remove()
		if p, err := c.read(own, 4096); err != nil || !bytes.Equal(p, pattern(4096, byte(i+1))) {
			t.Fatalf("round %d: an old write came back: read %v, %d", i, err, p[0])
		}
		bad.Remove()
		if i%10 == 9 {
			l.nodes["b"].cable.snap()
		}
	}
	load.more(l, 100)
	load.end()
	if load.cut.Load() > 0 {
		t.Error("clients were cut off")
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	if f := a.get().Figures(); f.ReadRepairs < 60 {
		t.Errorf("%d mends", f.ReadRepairs)
	}
	l.same("a", "b")
}

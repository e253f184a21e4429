package replication

import (
	"fmt"
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// promoteWith promotes a node with others that stay members, to be settled with.
func (l *lab) promoteWith(name string, basis cluster.Basis, stay ...string) {
	l.t.Helper()
	l.mustOn(func(on cluster.On) cluster.Command {
		p := &cluster.Promote{On: on, Term: 1, Candidate: name, Member: l.nodes[name].member(), Basis: basis, Stay: map[string]cluster.Member{}}
		v := l.volume()
		for _, n := range stay {
			p.Stay[n] = v.Members[n]
			if basis == cluster.BasisLastPrimary || basis == cluster.BasisAllLost {
				p.Stay[n] = l.nodes[n].member()
			}
		}
		return cluster.Command{Promote: p}
	})
}

// takes has a node serve after its promotion, without the old primary.
func (l *lab) takes(name string) *clientConn {
	l.t.Helper()
	l.nodes[name].grant()
	c := l.nodes[name].serving().client(l.t)
	return c
}

func (l *lab) byteAt(c *clientConn, off int64) byte {
	l.t.Helper()
	p, err := c.read(off, blockdev.BlockSize)
	if err != nil {
		l.t.Fatal(err)
	}
	return p[0]
}

const before, after = 1, 2

// torn is a lab of three whose first node wrote a block that one of the others has not got, and is gone.
func torn(t *testing.T, without string, off int64) *lab {
	t.Helper()
	l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b", "c")
	a := l.nodes["a"]
	client := a.serving().client(t)
	a.connected("b")
	a.connected("c")
	if err := client.write(off, pattern(blockdev.BlockSize, before)); err != nil {
		t.Fatal(err)
	}
	other := map[string]string{"b": "c", "c": "b"}[without]
	l.nodes[without].cable.hang()
	client.begin(writeReq(off, pattern(blockdev.BlockSize, after))) // nobody is told that it is done
	l.await("the other to have it", func() bool { return l.nodes[other].at(off, 1)[0] == after })
	if l.nodes[without].at(off, 1)[0] != before {
		t.Fatal("all have it")
	}
	a.crash()
	l.nodes[without].cable.mend()
	return l
}

// The primary wrote to one member only and dies. Whichever of the two follows, what a client reads of the block is what it
// reads after the next failover.
func TestBlockThatOneMemberLacksDoesNotChangeBack(t *testing.T) { // R29
	for _, c := range []struct{ without, first, then string }{{"c", "c", "b"}, {"c", "b", "c"}, {"b", "b", "c"}, {"b", "c", "b"}} {
		t.Run(fmt.Sprintf("%s lacks it, %s follows", c.without, c.first), func(t *testing.T) {
			const off = 20 << 20
			l := torn(t, c.without, off)
			l.promoteWith(c.first, cluster.BasisUnchanged, c.then)
			client := l.takes(c.first)
			got := l.byteAt(client, off)
			if want := byte(map[bool]int{true: before, false: after}[c.first == c.without]); got != want {
				t.Fatalf("reads %d, the new primary has %d", got, want)
			}
			l.nodes[c.first].crash()
			l.promoteWith(c.then, cluster.BasisUnchanged)
			if again := l.byteAt(l.takes(c.then), off); again != got {
				t.Fatalf("a client has read %d, and %d after the next failover", got, again)
			}
			l.nodes[c.first].start()
			l.nodes["a"].start()
		})
	}
}

// Nobody needs to read for it: what differs is copied in the background, and no member leaves for it.
func TestMembersThatDifferBecomeEqual(t *testing.T) { // R29
	l := torn(t, "c", 20<<20)
	l.promoteWith("c", cluster.BasisUnchanged, "b")
	l.takes("c")
	l.nodes["c"].settled("b")
	if l.differing("b", "c") > 0 || !l.volume().IsMember("b") {
		t.Fatalf("%d bytes differ, the set is %v", l.differing("b", "c"), l.volume().MemberNames())
	}
	l.nodes["a"].start()
}

// A member that is gone as well is dropped before anything of it is answered.
func TestReadWaitsForTheDropOfAMemberThatIsGoneToo(t *testing.T) { // R29, R4
	l := torn(t, "c", 20<<20)
	l.nodes["b"].crash()
	l.promoteWith("c", cluster.BasisUnchanged, "b")
	client := l.takes("c")
	read := make(chan error, 1)
	go func() { _, err := client.read(20<<20, blockdev.BlockSize); read <- err }()
	l.await("it to be dropped", func() bool { l.pass(dropAfter / 2); return !l.volume().IsMember("b") })
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	l.nodes["a"].start()
	l.nodes["b"].start()
}

// The old primary is promoted anew, and the standby stays: R6's "unless R29 settles them".
func TestOldPrimaryPromotedAnewKeepsItsStandby(t *testing.T) { // R6, R29
	const off = 20 << 20
	l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	client := a.serving().client(t)
	a.connected("b")
	b.cable.hang()
	client.begin(writeReq(off, pattern(blockdev.BlockSize, after)))
	l.await("it to be written here", func() bool { return a.at(off, 1)[0] == after })
	a.crash()
	a.mem = a.mem.Reopen()
	b.cable.mend()
	a.start()
	l.promoteWith("a", cluster.BasisUnchanged, "b")
	if got := l.byteAt(l.takes("a"), off); got != after {
		t.Fatalf("reads %d", got)
	}
	if got := b.at(off, 1)[0]; got != after {
		t.Fatalf("a client was told of %d, the standby has %d", after, got)
	}
	if l.drops() > 0 || !l.volume().IsMember("b") {
		t.Fatal("the standby left")
	}
}

// All lost their memory alike: the last primary is promoted, the others stay, whatever was not flushed on which of them.
func TestAllThatLostTheirMemoryAreSettled(t *testing.T) { // R25, R29
	for seed := range seeds(2) {
		r := leave(t, seed) // everything written so far is flushed
		r.write(60, 32<<20, 40<<20)
		r.b.power(r.rng)
		r.a.power(r.rng)
		r.a.start()
		r.b.start()
		r.promoteWith("a", cluster.BasisLastPrimary, "b")
		c := r.takes("a")
		for range 20 {
			off := 32<<20 + r.rng.Int64N(2048)*blockdev.BlockSize
			got := r.byteAt(c, off)
			if there := r.b.at(off, 1)[0]; there != got {
				t.Fatalf("seed %d: a client was told of %d, the standby has %d", seed, got, there)
			}
		}
		r.a.settled("b")
		if n := r.differing("a", "b"); n > 0 || r.drops() > 0 {
			t.Fatalf("seed %d: %d bytes differ, %d were dropped", seed, n, r.drops())
		}
	}
}

// A standby that lost its memory and had nothing unflushed stays a member, without a copy (R25).
func TestStandbyThatHadNothingUnflushedStays(t *testing.T) {
	r := leave(t, 0)
	r.rest()
	before, was := r.drops(), r.b.member()
	r.b.power(nil)
	r.b.tally.reset()
	r.b.start()
	r.await("its new incarnation to be confirmed", func() bool { return r.volume().Members["b"] == r.b.member() })
	r.a.connected("b")
	if err := r.c.write(0, pattern(blockdev.BlockSize, 9)); err != nil {
		t.Fatal(err)
	}
	if r.drops() != before || r.b.member().Incarnation == was.Incarnation {
		t.Fatalf("%d drops after %d; it is %+v, was %+v", r.drops(), before, r.b.member(), was)
	}
	r.same("a", "b")
}

// One that had marks says nothing of the kind, and leaves.
func TestStandbyThatHadMarksLeaves(t *testing.T) { // R25
	r := leave(t, 0)
	r.b.power(nil)
	r.b.start()
	if r.b.get().Report().Unmarked != nil {
		t.Fatal("it claims that nothing was unflushed")
	}
	r.await("it to be dropped", func() bool { r.pass(dropAfter / 2); return r.drops() > 0 })
}

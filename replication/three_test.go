package replication

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// Three volumes, one story: a standby misses writes and gets them by the maps (R14, R15); the primary dies with writes that one of
// the two others lacks, one of the two follows and settles with the other (R29); and the old primary gets what it missed by the maps
// of the new one, which it never had to do with before. At the end all are equal.
func TestThreeReplicasMissResyncFollowAndSettle(t *testing.T) {
	for seed := range seeds(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			l := formed(t, labConfig{inline: seed%2 == 0, size: marksVolume}, "a", "b", "c")
			s := &three{returning: returning{lab: l, a: l.nodes["a"], b: l.nodes["b"], rng: rand.New(rand.NewPCG(seed, 11))}}
			s.c = s.a.serving().client(t)
			s.a.connected("b")
			s.a.connected("c")
			s.write(100, 0, 8<<20)
			s.flush()
			s.missed("c")
			first, then := "b", "c"
			if seed%4 > 1 {
				first, then = then, first
			}
			s.follows(first, then, 24<<20)
			s.write(50, 28<<20, 32<<20)
			s.comesBack("a", first)
			s.same("a", "b")
			s.same("b", "c")
		})
	}
}

type three struct{ returning }

// missed cuts a standby off, has it dropped, and back: what it gets is what it missed.
func (s *three) missed(name string) {
	s.t.Helper()
	n := s.nodes[name]
	n.cable.cut()
	s.awaitPassing("it to be dropped", dropAfter/2, func() bool { return !s.volume().IsMember(name) })
	if len(s.volume().Members) != 2 {
		s.t.Fatalf("the set is %v", s.volume().MemberNames())
	}
	s.write(100, 20<<20, 24<<20)
	differs := s.differing("a", name)
	n.tally.reset()
	n.cable.mend()
	s.gets(name, differs, 5<<20)
}

// gets waits for a replica's admission: it was sent little more than differed, and little of it was read.
func (s *three) gets(name string, differs, reads int64) {
	s.t.Helper()
	s.await("it to be admitted", func() bool { return s.volume().IsMember(name) })
	n := s.nodes[name]
	if got := n.tally.written.Load(); got > differs*12/10 {
		s.t.Errorf("%d bytes were copied to %s, %d differed", got, name, differs)
	}
	if got := n.tally.read.Load(); got > reads {
		s.t.Errorf("%d bytes of %s were compared, want %d at most", got, name, reads)
	}
}

// follows has the primary die in the middle of writes that reached one of the two others, and one of these follow. It settles with
// the other before it answers.
func (s *three) follows(first, then string, off int64) {
	s.t.Helper()
	if err := s.c.write(off, pattern(8*blockdev.BlockSize, before)); err != nil {
		s.t.Fatal(err)
	}
	lacks, has := first, then
	if s.rng.IntN(2) == 0 {
		lacks, has = then, first
	}
	s.nodes[lacks].cable.hang()
	for i := range int64(4) {
		s.c.begin(writeReq(off+2*i*blockdev.BlockSize, pattern(blockdev.BlockSize, after))) // nobody is told that it is done
	}
	s.await("the other to have them", func() bool { return s.nodes[has].at(off+6*blockdev.BlockSize, 1)[0] == after })
	s.a.crash()
	s.nodes[lacks].cable.mend()
	s.promoteWith(first, cluster.BasisUnchanged, then)
	s.c = s.takes(first)
	if v := s.volume(); v.IsMember("a") || !v.IsMember(then) {
		s.t.Fatalf("%s serves and the set is %v", first, v.MemberNames())
	}
	want := byte(map[bool]int{true: before, false: after}[first == lacks])
	for i := range int64(4) {
		at := off + 2*i*blockdev.BlockSize
		if got := s.byteAt(s.c, at); got != want {
			s.t.Errorf("block %d reads %d, %s has %d", at/blockdev.BlockSize, got, first, want)
		}
		if got := s.nodes[then].at(at, 1)[0]; got != want {
			s.t.Errorf("block %d was answered with %d, and the other member holds %d", at/blockdev.BlockSize, want, got)
		}
	}
}

// comesBack starts the old primary: it is resynced by what is marked there and at the new one.
func (s *three) comesBack(name, primary string) {
	s.t.Helper()
	n := s.nodes[name]
	n.mem = n.mem.Reopen()
	differs := s.differing(name, primary)
	if differs == 0 {
		s.t.Fatal("nothing differs: this proves nothing")
	}
	n.tally.reset()
	n.start()
	s.gets(name, differs, 40<<20)
}

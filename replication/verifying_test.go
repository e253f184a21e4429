package replication

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/verify"
	"hacluster/replication/wire"
)

// verified runs a verify on n to its end.
func (n *labNode) verified(repair bool) VerifyStatus {
	n.l.t.Helper()
	if err := n.get().Tenure().Verify(VerifyRequest{Repair: repair, By: "a test"}); err != nil {
		n.l.t.Fatal(err)
	}
	return n.verifyEnd()
}

// verifyEnd waits for the end of the one that runs.
func (n *labNode) verifyEnd() (s VerifyStatus) {
	n.l.t.Helper()
	n.l.await("the verify to end", func() bool {
		s, _ = n.get().VerifyStatus()
		n.mu.Lock()
		defer n.mu.Unlock()
		last := "" // of a verify's: a resync may have its own meanwhile
		for _, e := range n.events {
			if strings.HasPrefix(e, "verify ") {
				last = e
			}
		}
		return s.State != VerifyRunning && last == "verify "+string(s.State)
	})
	return s
}

// rot changes a byte of a block on a node's disk, behind everybody's back.
func (n *labNode) rot(off int64) {
	n.l.t.Helper()
	p := make([]byte, 1)
	if _, err := n.mem.ReadAt(p, off); err != nil {
		n.l.t.Fatal(err)
	}
	p[0] ^= 0x40
	if _, err := n.mem.WriteFUA(p, off); err != nil {
		n.l.t.Fatal(err)
	}
}

func (s *VerifyStatus) of(node string) verify.Node {
	for _, n := range s.Nodes {
		if n.Node == node {
			return n
		}
	}
	return verify.Node{}
}

// R33: with clients writing all over what is compared, nothing is found that is not there; and what was seen to differ while a
// write was on its way was looked at again.
func TestR33VerifyUnderLoadFindsNothingThatIsNotThere(t *testing.T) {
	for _, inline := range []bool{true, false} {
		l := formed(t, labConfig{inline: inline}, "a", "b")
		a := l.nodes["a"]
		tenure := a.serving()
		a.connected("b")
		load := startLoad(t, tenure, 4)
		again := int64(0)
		for runs := 0; runs < 5 || again == 0 && runs < 200; runs++ {
			load.more(l, 100)
			s := a.verified(false)
			if d, u, _ := s.Blocks(); s.State != VerifyDone || d+u != 0 || s.Compared != volumeSize {
				t.Fatalf("%+v", s)
			}
			again += s.Again
		}
		if again == 0 {
			t.Error("nothing was looked at again: the load was on no piece that was compared")
		}
		load.end()
		if s := a.verified(true); s.Result.Nodes[1] != (verify.Node{Node: "b"}) {
			t.Errorf("%+v", s)
		}
		l.same("a", "b")
	}
}

// faults.md 64: the maps say clean and the data differ. It is found to the block, repaired on request only, and exactly that
// is copied, marked before and durable after.
func TestM64RotIsFoundAndRepairedOnRequestOnly(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	for off := int64(0); off < volumeSize; off += 256 << 10 {
		if err := c.write(off, pattern(64<<10, byte(off>>18)+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	bad := []int64{0, 4096, 1<<20 - 4096, 1 << 20, 3<<20 + 8192, volumeSize - 4096} // within a chunk, over its end, the last block
	for _, off := range bad {
		b.rot(off + 77)
	}
	before := b.content()
	s := a.verified(false)
	if got := s.of("b"); got != (verify.Node{Node: "b", Different: 6}) || s.of("a") != (verify.Node{Node: "a"}) {
		t.Fatalf("%+v", s)
	}
	if want := []blockdev.Range{{Off: 0, Len: 8192}, {Off: 1<<20 - 4096, Len: 8192}, {Off: 3<<20 + 8192, Len: 4096}, {Off: volumeSize - 4096, Len: 4096}}; !sameRanges(s.Ranges, want) {
		t.Errorf("ranges %+v, want %v", s.Ranges, want)
	}
	if !bytes.Equal(b.content(), before) {
		t.Fatal("it was repaired without consent")
	}
	if !a.has("verify found") {
		t.Errorf("events %v", a.events)
	}
	written := b.tally.written.Load()
	s = a.verified(true)
	if got := s.of("b"); got != (verify.Node{Node: "b", Different: 6, Repaired: 6}) {
		t.Fatalf("%+v", s)
	}
	if got := b.tally.written.Load() - written; got != 4*4096 { // the other two are zeroes, and go as such
		t.Errorf("%d bytes were written to mend 6 blocks, 2 of them zeroes", got)
	}
	l.same("a", "b")
	if got := a.get().Verified(); got != (Verified{Different: 12, Repaired: 6, Runs: 2}) {
		t.Errorf("counted %+v", got)
	}
	if s := a.verified(false); s.of("b") != (verify.Node{Node: "b"}) {
		t.Errorf("after the repair: %+v", s)
	}
	l.awaitPassing("the repair to be durable", clearEvery, func() bool { // no client flushes
		after := make([]byte, volumeSize)
		_, err := b.mem.Clone(memdev.CrashOptions{}).ReadAt(after, 0)
		return err == nil && bytes.Equal(after, a.content())
	})
}

func sameRanges(got []verify.Range, want []blockdev.Range) bool {
	if len(got) != len(want) {
		return false
	}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || g.Range == w && g.Node == "b" && g.Kind == verify.Different && !bytes.Equal(g.Mine, g.Theirs)
		}
		if !found {
			return false
		}
	}
	return true
}

// Rot is found and mended while clients write to the very blocks, and nothing that they wrote is lost by that.
func TestRotIsRepairedUnderLoad(t *testing.T) {
	for _, inline := range []bool{true, false} {
		l := formed(t, labConfig{inline: inline}, "a", "b")
		a, b := l.nodes["a"], l.nodes["b"]
		tenure := a.serving()
		a.connected("b")
		load := startLoad(t, tenure, 4)
		for i := range int64(10) {
			load.more(l, 50)
			b.rot(i*8192 + 5)         // a client may overwrite it first
			b.rot(4<<20 + i*8192 + 5) // nobody does
			s := a.verified(true)
			if n := s.of("b"); s.State != VerifyDone || n.Different < 1 || n.Different > 2 || n.Repaired != n.Different {
				t.Fatalf("%+v", s)
			}
		}
		load.end()
		if err := tenure.client(t).flush(); err != nil {
			t.Fatal(err)
		}
		l.same("a", "b")
	}
}

// What cannot be read is reported to the block for each replica, and with consent written anew from the side that can.
func TestVerifyReportsWhatCannotBeRead(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	if err := c.write(0, pattern(3<<20, 3)); err != nil {
		t.Fatal(err)
	}
	rule := func(n *labNode, off, size int64) *faultdev.Handle {
		return n.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Range: blockdev.Range{Off: off, Len: size}, Err: errFault})
	}
	ra := rule(a, 20480, 1)
	rule(b, 1<<20+12288, 1)
	rule(b, 2<<20, 1<<20) // a whole chunk: it is not read block by block to its end
	b.rot(8192)
	b.rot(1<<20 + 12288)
	s := a.verified(false)
	if s.State != VerifyDone || s.of("a") != (verify.Node{Node: "a", Unreadable: 1}) || s.of("b") != (verify.Node{Node: "b", Different: 1, Unreadable: 257}) {
		t.Fatalf("%+v", s)
	}
	s = a.verified(true) // the rules stay: nothing that was written can be read back
	if s.of("b") != (verify.Node{Node: "b", Different: 1, Unreadable: 257, Repaired: 1}) {
		t.Fatalf("%+v", s)
	}
	l.same("a", "b") // it was written all the same
	b.faults.Clear()
	ra.Remove()
	if s = a.verified(false); s.of("b") != (verify.Node{Node: "b"}) || s.of("a") != (verify.Node{Node: "a"}) {
		t.Fatalf("%+v", s)
	}
}

// A stream that breaks makes the verify wait and ask again, not guess.
func TestVerifyOutlastsBrokenStreams(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	tenure := a.serving()
	a.connected("b")
	b.rot(5 << 20)
	slow := b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Range: blockdev.Range{Off: 5 << 20, Len: 1}, Stall: true})
	load := startLoad(t, tenure, 2)
	if err := tenure.Verify(VerifyRequest{By: "a test"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.await("a read to wait", func() bool { return slow.Waiting() > 0 })
		b.cable.snap()
		load.more(l, 20)
	}
	if err := tenure.Verify(VerifyRequest{}); !errors.Is(err, ErrVerifying) {
		t.Errorf("a second one at the same time: %v", err)
	}
	slow.Release()
	s := a.verifyEnd()
	if s.State != VerifyDone || s.of("b") != (verify.Node{Node: "b", Different: 1}) {
		t.Errorf("%+v", s)
	}
	load.end()
}

// A verify ends in a stated state when it is stopped, when its last member leaves, and when the tenure ends; then it can be
// begun again, where there is somebody to compare with.
func TestVerifyEndsInAStatedState(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	tenure := a.serving()
	a.connected("b")
	begin := func() {
		t.Helper()
		if err := tenure.Verify(VerifyRequest{By: "a test"}); err != nil {
			t.Fatal(err)
		}
	}
	stall := func() *faultdev.Handle {
		return b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	}
	h := stall()
	begin()
	if !tenure.StopVerify() {
		t.Error("none runs")
	}
	if s := a.verifyEnd(); s.State != VerifyStopped || s.Compared != 0 {
		t.Errorf("%+v", s)
	}
	if tenure.StopVerify() {
		t.Error("one runs still")
	}
	begin()
	b.cable.cut()
	l.await("the standby to be dropped", func() bool {
		_ = tenure.client(t).begin(writeReq(0, pattern(4096, 1)))
		l.pass(2 * dropAfter)
		return l.drops() > 0
	})
	if s := a.verifyEnd(); s.State != VerifyInterrupted || s.of("b").LeftOut == "" {
		t.Errorf("%+v", s)
	}
	if err := tenure.Verify(VerifyRequest{}); !errors.Is(err, ErrNothingToVerify) {
		t.Errorf("with nobody to compare with: %v", err)
	}
	h.Remove()
	h.Release()
	b.cable.mend()
	l.awaitPassing("the standby to be admitted", dropAfter/4, func() bool { return l.volume().IsMember("b") })
	a.connected("b")
	h = stall()
	begin()
	l.promote("b", cluster.BasisHandOver)
	if s := a.verifyEnd(); s.State != VerifyInterrupted {
		t.Errorf("%+v", s)
	}
	if err := tenure.Verify(VerifyRequest{}); !errors.Is(err, blockdev.ErrNotPrimary) {
		t.Errorf("in a tenure that has ended: %v", err)
	}
	h.Remove()
	h.Release()
}

// What a verify asked before it was stopped may be answered while the next one runs: that is no answer to the next, right or
// wrong, and no reason to close the stream.
func TestVerifyIgnoresAnswersToAnEarlierOne(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	tenure := a.serving()
	a.connected("b")
	a.verified(false)
	slow := b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	if err := tenure.Verify(VerifyRequest{By: "a test"}); err != nil {
		t.Fatal(err)
	}
	l.await("a read to wait", func() bool { return slow.Waiting() > 0 })
	stream := tenure.streamTo("b")
	first := blockdev.Range{Len: verify.ChunkSize}
	for _, at := range []blockdev.Range{first, {Off: verify.ChunkSize, Len: 4096}} {
		tenure.verifyAnswer("b", stream, wire.Reply{Kind: wire.DigestReply, ID: verifyID + 1, Range: at, Digests: make([]byte, wire.Digests(at)*wire.DigestSize)})
	}
	slow.Remove()
	slow.Release()
	if s := a.verifyEnd(); s.State != VerifyDone || s.Again != 0 || s.of("b") != (verify.Node{Node: "b"}) {
		t.Errorf("%+v", s)
	}
	if now := tenure.streamTo("b"); now != stream {
		t.Errorf("stream %d is followed by %d", stream, now)
	}
}

func (t *Tenure) streamTo(node string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peer(node).stream
}

// Verifies that are begun and stopped while the member's disk is slow do not fill its stream with requests: it goes on taking
// writes (R28).
func TestStoppedVerifiesDoNotHoldUpTheStream(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	tenure := a.serving()
	a.connected("b")
	c := tenure.client(t)
	slow := b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	for i := range 5 {
		if err := tenure.Verify(VerifyRequest{By: "a test"}); err != nil {
			t.Fatal(err)
		}
		l.await("a read to wait", func() bool { return slow.Waiting() > 0 })
		if err := c.write(0, pattern(4096, byte(i))); err != nil { // what was asked is in the stream before it
			t.Fatal(err)
		}
		tenure.StopVerify()
		if s := a.verifyEnd(); s.State != VerifyStopped {
			t.Fatalf("%+v", s)
		}
		tenure.mu.Lock()
		looks := tenure.peer("b").looks
		tenure.mu.Unlock()
		if looks == 0 || looks > maxLooks {
			t.Fatalf("%d requests are not answered", looks)
		}
	}
	slow.Remove()
	slow.Release()
	if s := a.verified(false); s.State != VerifyDone || s.of("b") != (verify.Node{Node: "b"}) {
		t.Errorf("%+v", s)
	}
}

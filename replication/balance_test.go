package replication

import (
	"bytes"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/replication/primary"
)

// balancing is a primary whose reads take long, and a member that may answer them. What is on the primary's disk from byte 4096 on is
// not what was written: who answers with that has read there.
type balancing struct {
	*lab
	a, b *labNode
	c    *clientConn
	slow *faultdev.Handle
	want []byte
}

const balancedBytes = 64 << 10

func newBalancing(t *testing.T, inline bool) *balancing {
	t.Helper()
	l := formed(t, labConfig{inline: inline}, "a", "b")
	x := &balancing{lab: l, a: l.nodes["a"], b: l.nodes["b"], want: pattern(balancedBytes, 7)}
	x.a.get().SetBalance(true)
	x.c = x.a.serving().client(t)
	x.a.settled("b")
	if err := x.c.write(4096, x.want); err != nil {
		t.Fatal(err)
	}
	if err := x.c.flush(); err != nil {
		t.Fatal(err)
	}
	l.await("nothing to be under way", func() bool { return x.a.get().Figures().InFlight == 0 })
	if _, err := x.a.mem.WriteAt(pattern(balancedBytes, 0xee), 4096); err != nil {
		t.Fatal(err)
	}
	x.slow = x.a.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Delay: 5 * time.Millisecond})
	for range 3 { // it is measured
		if _, err := x.c.read(1<<20, 4096); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// reads checks that one read is answered by a member, or here.
func (x *balancing) reads(t *testing.T, there bool) {
	t.Helper()
	before := x.a.get().Figures().ReadsAt["b"]
	got, err := x.c.read(4096, balancedBytes)
	if err != nil {
		t.Fatal(err)
	}
	want := x.want
	if !there {
		want = pattern(balancedBytes, 0xee)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("it begins with %x; answered by the member: want %t", got[:4], there)
	}
	after := x.a.get().Figures().ReadsAt["b"]
	if n := after.Ops - before.Ops; n > 1 || (n == 1) != there || after.Bytes-before.Bytes != n*balancedBytes {
		t.Fatalf("%d reads of %d bytes were counted; answered by the member: want %t", n, after.Bytes-before.Bytes, there)
	}
}

func TestMemberAnswersReadsWhereTheDiskIsSlow(t *testing.T) {
	for _, inline := range []bool{false, true} {
		x := newBalancing(t, inline)
		for range 20 {
			x.reads(t, true)
		}
		x.a.get().SetBalance(false)
		x.reads(t, false)
		x.a.get().SetBalance(true)
		x.slow.Remove()
		for range 100 { // which brings what was measured down
			if _, err := x.c.read(1<<20, 4096); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A member that cannot read costs the client nothing, and is left alone for a while.
func TestReadThatAMemberCannotAnswerIsReadHere(t *testing.T) {
	x := newBalancing(t, false)
	bad := x.b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Err: errFault})
	x.reads(t, false)
	if bad.Hits() != 1 {
		t.Fatalf("the member was asked %d times", bad.Hits())
	}
	bad.Remove()
	x.reads(t, false)
	x.pass(11 * time.Second)
	x.a.connected("b")
	x.await("the member to be asked again", func() bool {
		_, err := x.c.read(4096, balancedBytes)
		return err != nil || x.a.get().Figures().ReadsAt["b"].Ops > 0
	})
	if v := x.volume(); !v.IsMember("b") {
		t.Error("the member was dropped for reads")
	}
}

// A member that does not answer in time is not waited for, and what it answers in the end changes nothing that a client was given.
func TestReadThatAMemberAnswersTooLateIsReadHere(t *testing.T) {
	x := newBalancing(t, false)
	held := x.b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	req := &blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Off: 4096, Len: balancedBytes}, Buf: blockdev.NewBuf(balancedBytes)}
	answer := x.c.begin(req)
	x.await("the member to be asked", func() bool { return held.Hits() == 1 })
	select {
	case err := <-answer:
		t.Fatalf("it was answered meanwhile: %v", err)
	default:
	}
	x.pass(dropAfter/4 + time.Second)
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	local := pattern(balancedBytes, 0xee)
	if !bytes.Equal(req.Buf.Bytes(), local) {
		t.Fatal("it was not read here")
	}
	held.Remove()
	x.await("the late answer", func() bool {
		tn := x.a.serving()
		tn.mu.Lock()
		defer tn.mu.Unlock()
		return tn.core.Asked("b") == 0
	})
	if !bytes.Equal(req.Buf.Bytes(), local) {
		t.Error("the late answer was written over what the client has")
	}
}

// A stream that ends has its reads read here at once.
func TestReadOfAStreamThatEndsIsReadHere(t *testing.T) {
	x := newBalancing(t, false)
	held := x.b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	var answers []<-chan error
	for range 2 * primary.MaxAsked {
		answers = append(answers, x.c.begin(&blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Off: 4096, Len: 4096}, Buf: blockdev.NewBuf(4096)}))
	}
	x.await("the member to be asked", func() bool { return held.Hits() > 0 })
	x.b.cable.snap()
	for _, a := range answers {
		if err := <-a; err != nil {
			t.Fatal(err)
		}
	}
	held.Remove()
}

// Where a write is under way no member is asked: it may have it while another replica has not.
func TestReadOfWhatIsBeingWrittenAsksNobody(t *testing.T) {
	x := newBalancing(t, false)
	held := x.b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	wrote := x.c.begin(writeReq(8192, pattern(4096, 9)))
	x.await("the write to reach the member", func() bool { return held.Hits() == 1 })
	asked := x.b.faults.Add(faultdev.Rule{Op: blockdev.OpRead, Delay: time.Microsecond})
	read := x.c.begin(&blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Off: 4096, Len: balancedBytes}, Buf: blockdev.NewBuf(balancedBytes)})
	time.Sleep(20 * time.Millisecond)
	select {
	case err := <-read:
		t.Fatalf("a read was answered before the write that it overlaps: %v", err)
	case err := <-wrote:
		t.Fatalf("the write was acknowledged without the member: %v", err)
	default:
	}
	held.Remove()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if asked.Hits() != 0 {
		t.Errorf("the member was asked %d times", asked.Hits())
	}
}

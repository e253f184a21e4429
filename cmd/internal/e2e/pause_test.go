package e2e

import (
	"bytes"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// faults.md T83: a primary that is stopped for longer than its lease and goes on answers nothing of the old epoch: no
// read with what was true then, no write.
func TestT83PrimaryStoppedAndContinued(t *testing.T) {
	r := healthy(t, Config{RTO: "6s"})
	l := r.load()
	for round := range uint64(times(1, 2)) {
		const block = 100 // not the load's
		var read, write *nbdclient.Call
		old, before, _ := r.struck(blow{what: "a pause",
			strike: func(old string) {
				c := r.direct(old)
				if _, err := c.WriteAt(stamped(block, 3*round+1), block*StampSize); err != nil {
					t.Fatal(err)
				}
				r.pause(old)
				// In flight while it stands still: reads and writes that lie in its socket.
				at := blockdev.Range{Off: block * StampSize, Len: StampSize}
				read = c.Start(nbdclient.Op{Cmd: nbdproto.CmdRead, Range: at, Data: make([]byte, StampSize)})
				write = c.Start(nbdclient.Op{Cmd: nbdproto.CmdWrite, Range: at, Data: stamped(block, 3*round+2)})
			},
			undo: func(old string) {
				r.signal(syscall.SIGCONT, old)
				_, _ = read.Wait(), write.Wait() // the only member may answer them, and nothing of them comes later
			}})
		n := r.direct(other(old))
		if _, err := n.WriteAt(stamped(block, 3*round+3), block*StampSize); err != nil {
			t.Fatal(err)
		}
		l.more(50)
		r.signal(syscall.SIGCONT, old)
		for what, k := range map[string]*nbdclient.Call{"read": read, "write": write} {
			if err := k.Wait(); !errors.Is(err, nbdclient.ErrConnectionLost) {
				t.Errorf("a %s of the old epoch was answered: %v", what, err)
			}
		}
		r.until("it is resynced", Healthy)
		got := make([]byte, StampSize)
		if _, err := n.ReadAt(got, block*StampSize); err != nil || !bytes.Equal(got, stamped(block, 3*round+3)) {
			seq, what := readStamp(got, block)
			t.Errorf("the block holds write %d (%v), %d was the last acknowledged one; %v", seq, what, 3*round+3, err)
		}
		if v := r.vol(); v.Epoch != before.Epoch+1 {
			t.Errorf("one pause moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
		}
	}
	l.stop()
	r.same()
}

// A pause shorter than what is left of the lease is nobody's business.
func TestT83ShortPauseOfThePrimary(t *testing.T) {
	r := healthy(t, Config{RTO: "20s"}) // lease 8.4 s, renewed each 2.1 s
	l := r.load()
	before := r.vol()
	for range 5 {
		r.pause(before.Primary)
		time.Sleep(300 * time.Millisecond)
		r.signal(syscall.SIGCONT, before.Primary)
		l.more(20)
	}
	if v := r.vol(); v.Epoch != before.Epoch {
		t.Errorf("pauses of 300 ms moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
	}
	l.stop()
	r.same()
}

// faults.md T84: a standby that is stopped is dropped, by a committed entry, writes go on, and it is resynced when it
// goes on.
func TestT84StandbyStoppedAndContinued(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	l := r.load()
	before := r.vol()
	standby := other(before.Primary)
	for range times(1, 3) {
		r.pause(standby)
		l.more(100)
		s := r.until("it was dropped", func(s *apiStatus) bool { return s.Quorum && !isMember(standby)(s) })
		if s.Volumes[0].State == "healthy" || slices.Contains(s.Volumes[0].Promotable, standby) {
			t.Errorf("without its standby the volume is %s, promotable %v", s.Volumes[0].State, s.Volumes[0].Promotable)
		}
		r.signal(syscall.SIGCONT, standby)
		r.until("it is resynced", Healthy)
	}
	if v := r.vol(); v.Epoch != before.Epoch {
		t.Errorf("pauses of the standby moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
	}
	l.stop()
	r.same()
}

// faults.md T85: the witness may stand still, also while it leads the group: nothing happens.
func TestT85WitnessStoppedAndContinued(t *testing.T) {
	r := healthy(t, Config{RTO: "16s"}) // a busy machine alone must move no role here
	l := r.load()
	r.until("the witness leads: no primary should", func(s *apiStatus) bool { return s.Leader == "gamma" })
	before := r.vol()
	r.pause("gamma")
	r.until("a data node leads", func(s *apiStatus) bool { return s.Quorum && s.Leader != "gamma" })
	l.more(200)
	v := r.vol()
	r.signal(syscall.SIGCONT, "gamma")
	r.until("the witness is back", func(s *apiStatus) bool { return s.Quorum && s.Nodes[2].State == "alive" })
	l.more(200)
	for _, v := range append([]apiVolume{v}, r.vol()) {
		if v.Epoch != before.Epoch || v.Primary != before.Primary || len(v.InSync) != 2 {
			t.Errorf("a pause of the witness led from %+v to %+v", before, v)
		}
	}
	l.stop()
	r.same()
}

// faults.md T87: all three stand still at once, for longer than every lease, and go on in any order.
func TestT87AllStoppedAndContinuedInAnyOrder(t *testing.T) {
	r := healthy(t, Config{})
	l := r.load()
	for _, i := range some(t, 3, 0, 1, 2, 3, 4, 5) {
		before := r.vol()
		r.pause(orders[(i+2)%len(orders)]...)
		time.Sleep(time.Second) // the lease is 840 ms
		for _, n := range orders[i] {
			r.signal(syscall.SIGCONT, n)
			time.Sleep(time.Duration(i%3) * 300 * time.Millisecond)
		}
		r.until("healthy again", Healthy)
		l.more(50)
		if v := r.vol(); v.Epoch > before.Epoch+2 {
			t.Errorf("one pause of all moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
		}
	}
	l.stop()
	r.same()
}

// ha-admin passes by a node that accepts connections and answers nothing.
func TestT83AdminPassesByAStoppedNode(t *testing.T) {
	r := healthy(t, Config{})
	r.pause("gamma")
	ctx, cancel := r.within()
	defer cancel()
	out, errs, code := r.AdminAt(ctx, r.socket("gamma")+","+r.socket("alpha"), "status", "-o", "json")
	if code != 0 {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if _, errs, code := r.AdminAt(ctx, r.socket("gamma"), "--timeout", "1s", "status"); code != 4 {
		t.Errorf("nobody answers: exit code %d, want 4: %s", code, errs)
	}
	r.signal(syscall.SIGCONT, "gamma")
}

func stamped(block int64, seq uint64) []byte {
	p := make([]byte, StampSize)
	Stamp(p, block, seq)
	return p
}

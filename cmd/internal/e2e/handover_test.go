package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"

	"hacluster/blockdev/frontend/nbd/nbdclient"
)

// R30: a hand-over is a pause for clients, and nothing else. N38: a client of the old primary is cut off without an
// answer.
func TestHandOverUnderLoadBackAndForth(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must move no role here; a hand-over waits for no lease
	l := r.load()
	for range times(3, 6) {
		before := r.until("healthy before it", Healthy).Volumes[0]
		to := other(before.Primary)
		stays := r.direct(before.Primary)
		r.admin(0, "failover", "vol", "--to", to)
		v := r.until("it is served there", PrimaryIs(to)).Volumes[0]
		if v.Epoch != before.Epoch+1 {
			t.Errorf("a hand-over moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
		}
		if _, err := stays.ReadAt(make([]byte, StampSize), 0); !errors.Is(err, nbdclient.ErrConnectionLost) {
			t.Errorf("a client of the old primary read: %v", err)
		}
		l.more(100)
		r.until("healthy", Healthy)
	}
	l.stop()
	r.same()
}

// Without --to the best member follows.
func TestHandOverBySIGTERMUnderLoad(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"})
	l := r.load()
	for range times(2, 3) {
		said := 0 // by the node before
		_, before, v := r.struck(blow{what: "SIGTERM",
			strike: func(node string) { said = len(r.log(node)); r.stop(node) }, // exit code 0
			undo:   func(node string) { r.start(node) }})
		l.more(100)
		ctx, cancel := r.within()
		f, err := r.FailoverTo(ctx, v.Epoch)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if v.Epoch != before.Epoch+1 || f.From != before.Primary || f.To != other(before.Primary) || f.Reason != "given up" {
			t.Errorf("SIGTERM moved the volume from epoch %d to %d, recorded as %+v", before.Epoch, v.Epoch, f)
		}
		if log := r.log(before.Primary)[said:]; !strings.Contains(log, "handed over") || strings.Contains(log, "without a hand-over") || strings.Contains(log, "nobody took the volume") {
			t.Errorf("%s ran out of patience: %s", before.Primary, log)
		}
		r.start(before.Primary)
		r.until("healthy", Healthy)
	}
	r.admin(0, "failover", "vol")
	l.more(50)
	l.stop()
	r.same()
}

// F122: two orders at once, one while the other is carried out; and a kill in the middle of a hand-over.
func TestF122HandOversThatMeet(t *testing.T) {
	r := healthy(t, Config{RTO: "6s"})
	l := r.load()
	for i, again := 0, 0; i < 4; i++ {
		before := r.until("healthy before it", Healthy).Volumes[0]
		to := other(before.Primary)
		done := make(chan int, 2)
		for range 2 {
			go func() {
				ctx, cancel := context.WithTimeout(r.ctx, patience)
				defer cancel()
				_, _, code := r.Admin(ctx, "failover", "vol", "--to", to)
				done <- code
			}()
		}
		if i == 2 {
			r.Kill(before.Primary)
		}
		a, b := <-done, <-done
		if i == 2 && r.until("the other serves", func(s *apiStatus) bool { return PrimaryIs(to)(s) || onlyMember(before.Primary)(s) }).Volumes[0].Primary != to {
			if again++; again == blowsAtMost {
				t.Fatalf("each of %d times %s was dropped meanwhile", again, to)
			}
			r.start(before.Primary)
			i--
			continue
		}
		if a == b && (a == 4 || a == 3) { // no leader at that moment; or a resync ran, as admin tells apart
			r.admin(0, "failover", "vol", "--to", to)
		} else if i != 2 && a != 0 && b != 0 {
			t.Errorf("neither of two equal orders was carried out: exit codes %d and %d", a, b)
		}
		v := r.until("it is served there", PrimaryIs(to)).Volumes[0]
		if v.Epoch != before.Epoch+1 {
			t.Errorf("two equal orders moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
		}
		l.more(50)
		if i == 2 {
			r.start(before.Primary)
		}
		r.until("healthy", Healthy)
	}
	l.stop()
	r.same()
}

// direct is one connection to a node, which does not look for another.
func (r *rig) direct(node string) *nbdclient.Client {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	c, err := nbdclient.Dial(ctx, r.URI(node))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Abort() })
	return c
}

var dialDirect = nbdclient.Dial

package replication

import (
	"testing"
	"time"
)

func copiers(n int) (all []*copier) {
	for range n {
		all = append(all, &copier{p: &peerLink{wake: make(chan struct{}, 1)}})
	}
	return all
}

// runs are those that have a turn, asked in order.
func runs(q *turns, all []*copier, now time.Time) (which []int) {
	for i, c := range all {
		if q.may(c, now) {
			which = append(which, i)
		}
	}
	return which
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestSoManyResyncsRunAtATimeInTheOrderInWhichTheyCame(t *testing.T) {
	q, all, now := &turns{limit: 2}, copiers(5), time.Now()
	if got := runs(q, all, now); !equal(got, []int{0, 1}) {
		t.Fatalf("%v run", got)
	}
	if before, ok := q.waits(all[4]); !ok || before != 2 {
		t.Errorf("the last waits for %d, %t", before, ok)
	}
	if _, ok := q.waits(all[0]); ok {
		t.Error("one that runs waits")
	}
	q.done(all[1], now)
	select {
	case <-all[2].p.wake:
	default:
		t.Error("the next was not told")
	}
	if got := runs(q, all[2:], now); !equal(got, []int{0}) {
		t.Errorf("after one has ended %v of the others run", got)
	}
	q.done(all[3], now) // it waited: its stream ended
	q.done(all[0], now)
	if got := runs(q, all[4:], now); !equal(got, []int{0}) {
		t.Error("the place of one that is gone is kept")
	}
}

// A large volume goes behind those that wait when its time is over, also when it says nothing: it may be held up by its disk.
func TestOneResyncDoesNotKeepOthersWaitingForEver(t *testing.T) {
	q, all, now := &turns{limit: 1}, copiers(3), time.Now()
	if got := runs(q, all, now); !equal(got, []int{0}) {
		t.Fatalf("%v run", got)
	}
	now = now.Add(turnTime)
	if !q.may(all[1], now) {
		t.Fatal("the time is over, and the next has no turn")
	}
	if q.may(all[0], now) {
		t.Fatal("both run")
	}
	now = now.Add(turnTime)
	if q.may(all[1], now) || !q.may(all[2], now) {
		t.Error("the third is passed over")
	}
	q.done(all[2], now)
	if !q.may(all[0], now) {
		t.Error("the first does not get its turn again")
	}
	if q.done(all[1], now); !q.may(all[0], now.Add(3*turnTime)) {
		t.Error("nobody waits, and its turn is taken away")
	}
}

func TestMoreResyncsMayRunAtOnceWhenTheLimitRises(t *testing.T) {
	q, all, now := &turns{limit: 1}, copiers(3), time.Now()
	runs(q, all, now)
	if q.set(3); !equal(runs(q, all, now), []int{0, 1, 2}) {
		t.Error("those that waited do not run")
	}
}

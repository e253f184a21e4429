package order

import (
	"math/rand/v2"
	"slices"
	"testing"

	"hacluster/blockdev"
)

func item(off, n int64) *Item { return &Item{Range: blockdev.Range{Off: off, Len: n}} }

func TestOverlapDecidesWhoWaits(t *testing.T) { // R33
	for name, c := range map[string]struct {
		a, b *Item
		wait bool
	}{
		"same range":        {item(0, 8), item(0, 8), true},
		"last byte":         {item(0, 8), item(7, 8), true},
		"first byte":        {item(8, 8), item(1, 8), true},
		"inside":            {item(0, 100), item(50, 1), true},
		"around":            {item(50, 1), item(0, 100), true},
		"just behind":       {item(0, 8), item(8, 8), false},
		"just before":       {item(8, 8), item(0, 8), false},
		"empty":             {item(0, 8), item(8, 0), false},
		"barrier behind":    {item(0, 8), &Item{Barrier: true}, true},
		"behind a barrier":  {&Item{Barrier: true, Range: blockdev.Range{Off: 0, Len: 8}}, item(0, 8), false},
		"behind a fence":    {&Item{Fence: true}, item(0, 8), true},
		"fence behind":      {item(0, 8), &Item{Fence: true}, false},
		"barrier and fence": {&Item{Barrier: true, Fence: true}, &Item{Barrier: true}, true},
		"two barriers":      {&Item{Barrier: true}, &Item{Barrier: true}, true},
	} {
		var q Queue
		if !q.Admit(c.a) {
			t.Errorf("%s: the first waits for nothing and may not start", name)
		}
		if ready := q.Admit(c.b); ready == c.wait {
			t.Errorf("%s: the second may start: %t, want %t", name, ready, !c.wait)
		}
		ready := q.Return(c.a, nil)
		if c.wait != slices.Contains(ready, c.b) {
			t.Errorf("%s: the first returned, started %d", name, len(ready))
		}
		if q.Len() != 1 {
			t.Errorf("%s: %d left, want 1", name, q.Len())
		}
	}
}

func TestLaterOneWaitsForEveryEarlierOne(t *testing.T) { // R33
	var q Queue
	a, b, c := item(0, 8), item(8, 8), item(4, 8)
	q.Admit(a)
	q.Admit(b)
	q.Admit(c)
	if got := q.Return(b, nil); len(got) != 0 {
		t.Fatal("started although one of two that it overlaps has not returned")
	}
	if got := q.Return(a, nil); len(got) != 1 || got[0] != c {
		t.Fatal("not started after both returned")
	}
}

func TestOneThatWaitsHoldsUpWhatOverlapsIt(t *testing.T) { // R33: no overtaking through a gap
	var q Queue
	a, b, c := item(0, 8), item(4, 8), item(8, 8)
	q.Admit(a)
	q.Admit(b)
	if q.Admit(c) {
		t.Fatal("started before an earlier one that it overlaps and that has not even started")
	}
}

func TestReadyOnesComeInTheOrderOfAdmission(t *testing.T) {
	var q Queue
	first := item(0, 100)
	q.Admit(first)
	var want []*Item
	for i := range int64(10) {
		it := item(i*8, 8)
		q.Admit(it)
		want = append(want, it)
	}
	if got := q.Return(first, nil); !slices.Equal(got, want) {
		t.Fatal("not in the order of admission")
	}
}

func TestItemIsReusable(t *testing.T) {
	var q Queue
	a, b := item(0, 8), item(0, 8)
	for range 3 {
		if !q.Admit(a) || q.Admit(b) {
			t.Fatal("a used item starts wrongly")
		}
		if got := q.Return(a, nil); len(got) != 1 || got[0] != b {
			t.Fatal("the other one did not start")
		}
		q.Return(b, nil)
	}
	if q.Len() != 0 {
		t.Fatalf("%d left", q.Len())
	}
}

// oracle says who may run by comparing everything with everything.
type oracle []*tracked

type tracked struct {
	Item
	seq     int
	started bool
}

func (o oracle) mayStart(it *tracked) bool {
	for _, e := range o {
		if e.seq < it.seq && (it.Barrier || !e.Barrier && e.Range.Overlaps(it.Range)) {
			return false
		}
	}
	return true
}

func TestRandomOperationsAgreeWithComparingEverything(t *testing.T) { // R33
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 5))
		var q Queue
		var all oracle
		for seq := range 300 {
			if len(all) < 20 && rng.IntN(2) == 0 {
				it := &tracked{seq: seq}
				it.Owner, it.Barrier = it, rng.IntN(8) == 0
				it.Range = blockdev.Range{Off: rng.Int64N(40), Len: rng.Int64N(10)}
				want := all.mayStart(it)
				if it.started = q.Admit(&it.Item); it.started != want {
					t.Fatalf("seed %d: admitted %v, may start: %t, want %t", seed, it.Range, it.started, want)
				}
				all = append(all, it)
			} else if n := len(all); n > 0 {
				i := rng.IntN(n)
				if !all[i].started {
					continue
				}
				it := all[i]
				all = slices.Delete(all, i, i+1)
				for _, r := range q.Return(&it.Item, nil) {
					e := r.Owner.(*tracked)
					if e.started {
						t.Fatalf("seed %d: %v started twice", seed, e.Range)
					}
					e.started = true
				}
				for _, e := range all {
					if e.started != all.mayStart(e) {
						t.Fatalf("seed %d: %v started: %t, want %t", seed, e.Range, e.started, !e.started)
					}
				}
			}
			if q.Len() != len(all) {
				t.Fatalf("seed %d: %d in the queue, want %d", seed, q.Len(), len(all))
			}
		}
	}
}

func TestQueueKeepsNothingThatReturned(t *testing.T) { // R28
	var q Queue
	for range 100 {
		a, b := item(0, 8), item(0, 8)
		q.Admit(a)
		q.Admit(b)
		q.Return(a, nil)
		q.Return(b, nil)
	}
	for _, it := range q.active[:cap(q.active)] {
		if it != nil {
			t.Fatal("the queue still refers to an item that returned")
		}
	}
	if cap(q.active) > 8 {
		t.Fatalf("room for %d items, never more than 2 were in it", cap(q.active))
	}
}

// 32 under way, which is what a client's queue depth makes common: the expected cost is one comparison with each.
func BenchmarkAdmitReturn(b *testing.B) {
	var q Queue
	items := make([]*Item, 32)
	for i := range items {
		items[i] = item(int64(i)*4096, 4096)
		q.Admit(items[i])
	}
	b.ReportAllocs()
	for i := range b.N {
		it := items[i%32]
		q.Return(it, nil)
		q.Admit(it)
	}
}

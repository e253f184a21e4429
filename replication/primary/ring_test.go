package primary

import (
	"math/rand/v2"
	"testing"
)

func TestRingKeepsOrderWhileItGrowsAndWraps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var r ring[int]
	var want []int
	next, longest := 0, 0
	for range 20_000 {
		switch n := rng.IntN(10); {
		case n < 5 || r.len() == 0:
			r.push(next)
			want = append(want, next)
			next++
		case n < 9:
			if got := r.pop(); got != want[0] {
				t.Fatalf("popped %d, want %d", got, want[0])
			}
			want = want[1:]
		default:
			i := rng.IntN(r.len())
			r.set(i, -next)
			want[i] = -next
		}
		if r.len() != len(want) {
			t.Fatalf("%d elements, want %d", r.len(), len(want))
		}
		if i := len(want); i > 0 {
			if i = rng.IntN(i); r.at(i) != want[i] {
				t.Fatalf("element %d is %d, want %d", i, r.at(i), want[i])
			}
		}
		longest = max(longest, r.len())
	}
	if longest < 33 {
		t.Fatalf("the ring never grew twice: %d elements at most", longest)
	}
}

func TestRingForgetsWhatItPopped(t *testing.T) {
	var r ring[*int]
	r.push(new(int))
	r.pop()
	for i, v := range r.buf {
		if v != nil {
			t.Fatalf("place %d still holds what was popped", i)
		}
	}
}

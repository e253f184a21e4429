package resync

import (
	"math/rand/v2"
	"slices"
	"testing"

	"hacluster/blockdev"
)

const (
	kib   = 1 << 10
	chunk = 64 * kib
)

// everything is a plan in which all is to be compared.
func everything(size, chunk int64) *Plan {
	p := NewPlan(size, chunk)
	p.Touch(blockdev.Range{Len: size})
	return p
}

func TestAPlanOfEverythingHasAllToCompare(t *testing.T) { // R16
	for _, size := range []int64{0, 1, chunk - 1, chunk, chunk + 1, 10 * chunk, 10*chunk + 4096} {
		p := everything(size, chunk)
		if p.Remaining() != size || p.Done() != (size == 0) {
			t.Errorf("size %d: %d remain, done %t", size, p.Remaining(), p.Done())
		}
		next := int64(0)
		for {
			r, ok := p.Take(0)
			if !ok {
				break
			}
			if r.Off != next || r.Len <= 0 || !r.Within(size) {
				t.Fatalf("size %d: took %v at %d", size, r, next)
			}
			next = r.End()
			p.Differs(r, 0)
		}
		if next != size || !p.Done() {
			t.Errorf("size %d: compared up to %d, done %t", size, next, p.Done())
		}
	}
}

func TestChunkIsNotHandedOutTwice(t *testing.T) {
	p := everything(3*chunk, chunk)
	seen := map[int64]bool{}
	for range 3 {
		r, ok := p.Take(0)
		if !ok || seen[r.Off] {
			t.Fatalf("took %v (%t) of %v", r, ok, seen)
		}
		seen[r.Off] = true
	}
	if r, ok := p.Take(0); ok {
		t.Fatalf("took %v although everything is in work", r)
	}
}

func TestChunkIsDoneAfterItsLastPiece(t *testing.T) {
	p := everything(chunk, chunk)
	r, _ := p.Take(0)
	p.Differs(r, 2)
	p.Copied(r)
	if p.Done() {
		t.Fatal("done with a piece on its way")
	}
	p.Copied(r)
	if !p.Done() {
		t.Fatal("not done after the last piece")
	}
}

func TestTouchedChunkIsLookedAtAgain(t *testing.T) { // R17
	for name, when := range map[string]func(p *Plan, r blockdev.Range, touch func()){
		"while comparing": func(p *Plan, r blockdev.Range, touch func()) { touch(); p.Differs(r, 0) },
		"while copying":   func(p *Plan, r blockdev.Range, touch func()) { p.Differs(r, 1); touch(); p.Copied(r) },
		"when done":       func(p *Plan, r blockdev.Range, touch func()) { p.Differs(r, 0); touch() },
	} {
		p := everything(4*chunk, chunk)
		for range 4 {
			r, _ := p.Take(0)
			if r.Off == chunk {
				when(p, r, func() { p.Touch(blockdev.Range{Off: 2*chunk - 1, Len: 1}) })
				continue
			}
			p.Differs(r, 0)
		}
		if p.Remaining() != chunk {
			t.Errorf("%s: %d bytes remain, want one chunk", name, p.Remaining())
		}
		if r, ok := p.Take(0); !ok || r.Off != chunk {
			t.Errorf("%s: took %v (%t), want the chunk that was touched", name, r, ok)
		}
	}
}

func TestTouchReachesExactlyTheChunksOfTheRange(t *testing.T) {
	for _, c := range []struct {
		r    blockdev.Range
		want int64
	}{
		{blockdev.Range{Off: 0, Len: 0}, 0},
		{blockdev.Range{Off: chunk, Len: 0}, 0},
		{blockdev.Range{Off: chunk, Len: 1}, chunk},
		{blockdev.Range{Off: chunk - 1, Len: 2}, 2 * chunk},
		{blockdev.Range{Off: 0, Len: 3 * chunk}, 3 * chunk},
		{blockdev.Range{Off: 3 * chunk, Len: 100}, 100}, // the last one is short
	} {
		p := everything(3*chunk+100, chunk)
		for {
			r, ok := p.Take(0)
			if !ok {
				break
			}
			p.Differs(r, 0)
		}
		if p.Touch(c.r); p.Remaining() != c.want {
			t.Errorf("%v: %d bytes remain, want %d", c.r, p.Remaining(), c.want)
		}
		if p.Done() != (c.want == 0) {
			t.Errorf("%v: done %t", c.r, p.Done())
		}
	}
}

func TestInterruptedWorkStaysToBeDone(t *testing.T) {
	p := everything(3*chunk, chunk)
	comparing, _ := p.Take(0)
	copying, _ := p.Take(0)
	p.Differs(copying, 2)
	p.Copied(copying)
	p.Interrupt()
	p.Copied(copying) // late: counts for nothing
	p.Differs(comparing, 0)
	if p.Remaining() != 3*chunk {
		t.Fatalf("%d bytes remain, want all: the outcome of what was in work is unknown", p.Remaining())
	}
	taken := 0
	for {
		if _, ok := p.Take(0); !ok {
			break
		}
		taken++
	}
	if taken != 3 {
		t.Fatalf("%d chunks were handed out again, want 3", taken)
	}
}

func TestRandomUseAgreesWithAPlainList(t *testing.T) { // R17
	const pieces = 25
	type work struct {
		r      blockdev.Range
		copies int // -1 while comparing
		again  bool
	}
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		p := everything(pieces*chunk-100, chunk)
		var todo [pieces]bool
		var working []*work
		for i := range todo {
			todo[i] = true
		}
		each := func(r blockdev.Range, f func(i int64)) {
			for i := range int64(pieces) {
				if c := (blockdev.Range{Off: i * chunk, Len: min(chunk, p.size-i*chunk)}); r.Len > 0 && c.Overlaps(r) {
					f(i)
				}
			}
		}
		at := func(i int64) *work {
			for _, w := range working {
				if w.r.Off <= i*chunk && i*chunk < w.r.End() {
					return w
				}
			}
			return nil
		}
		settle := func(w *work) {
			if w.copies == 0 {
				each(w.r, func(i int64) { todo[i] = w.again })
				working = slices.DeleteFunc(working, func(o *work) bool { return o == w })
			}
		}
		pick := func(comparing bool) *work {
			for _, i := range rng.Perm(len(working)) {
				if w := working[i]; w.copies < 0 == comparing {
					return w
				}
			}
			return nil
		}
		// part is what of a chunk is to be compared: it need not reach its first piece.
		part := func(w *work) blockdev.Range {
			skip := rng.Int64N(w.r.Len)
			return blockdev.Range{Off: w.r.Off + skip, Len: 1 + rng.Int64N(w.r.Len-skip)}
		}
		for range 400 {
			switch rng.IntN(12) {
			case 0:
				off := rng.Int64N(p.size)
				r := blockdev.Range{Off: off, Len: rng.Int64N(min(3*chunk, p.size-off) + 1)}
				p.Touch(r)
				each(r, func(i int64) {
					todo[i] = true
					if w := at(i); w != nil {
						w.again = true
					}
				})
			case 1:
				if rng.IntN(5) == 0 {
					p.Interrupt()
					working = nil
				}
			case 2, 3, 4:
				most := rng.Int64N(5 * chunk)
				r, ok := p.Take(most)
				if !ok {
					for i := range todo {
						if todo[i] && at(int64(i)) == nil {
							t.Fatalf("seed %d: piece %d is to be done and was not handed out", seed, i)
						}
					}
					continue
				}
				if r.Off%chunk != 0 || r.Len > max(most, chunk) || r.Len%chunk != 0 && r.End() != p.size {
					t.Fatalf("seed %d: took %v, want at most %d bytes of whole pieces", seed, r, max(most, chunk))
				}
				each(r, func(i int64) {
					if !todo[i] || at(i) != nil {
						t.Fatalf("seed %d: took %v: piece %d is to be done: %t", seed, r, i, todo[i])
					}
				})
				if next := r.End() / chunk; r.Len+chunk <= most && r.End() < p.size && next < pieces && todo[next] && at(next) == nil {
					t.Fatalf("seed %d: took %v of at most %d bytes: the next piece was to be done too", seed, r, most)
				}
				working = append(working, &work{r: r, copies: -1})
			case 5, 6, 7:
				if w := pick(true); w != nil {
					w.copies = rng.IntN(3)
					p.Differs(part(w), w.copies)
					settle(w)
				}
			default:
				if w := pick(false); w != nil {
					if got := p.Again(part(w)); got != w.again {
						t.Fatalf("seed %d: %v is to be looked at again: %t, want %t", seed, w.r, got, w.again)
					}
					p.Copied(part(w))
					w.copies--
					settle(w)
				}
			}
			if left := slices.Contains(todo[:], true); p.Done() == left {
				t.Fatalf("seed %d: done %t, the list says %v", seed, p.Done(), todo)
			}
		}
	}
}

func TestWhatIsSetAsideIsNeitherDoneNorHandedOutBeforeRetry(t *testing.T) {
	p := everything(3*10, 10)
	a, _ := p.Take(0)
	p.SetAside(a)
	p.Differs(a, 1)
	p.Copied(a)
	for range 2 {
		c, ok := p.Take(0)
		if !ok || c == a {
			t.Fatalf("took %v, %t", c, ok)
		}
		p.Differs(c, 0)
	}
	if c, ok := p.Take(0); ok || p.Done() || p.Remaining() != 10 || !p.Aside() {
		t.Fatalf("took %v, done %t, remaining %d", c, p.Done(), p.Remaining())
	}
	next := everything(3*10, 10)
	next.Inherit(p)
	for range 2 {
		if c, ok := next.Take(0); !ok || c == a {
			t.Fatalf("after a new beginning: took %v, %t", c, ok)
		}
	}
	p.Retry()
	if c, ok := p.Take(0); !ok || c != a {
		t.Fatalf("after Retry: took %v, %t", c, ok)
	}
	p.Differs(a, 0)
	if !p.Done() || p.Aside() {
		t.Error("it is not done")
	}
}

func TestPreferredChunkIsHandedOutFirst(t *testing.T) {
	p := NewPlan(8<<20, 1<<20)
	p.Touch(blockdev.Range{Len: 4 << 20})
	first, _ := p.Take(0)
	p.Prefer(blockdev.Range{Off: 3<<20 - 1, Len: 2}) // chunks 2 and 3
	p.Prefer(blockdev.Range{Off: 6 << 20, Len: 1})   // nobody had it to be done
	p.Prefer(first)
	p.Prefer(blockdev.Range{Off: 2 << 20, Len: 1})
	for _, want := range []int64{2, 3, 6} {
		if !p.Preferred() {
			t.Fatalf("chunk %d is not preferred", want)
		}
		if r, ok := p.Take(0); !ok || r.Off != want<<20 {
			t.Fatalf("%v (%t) is handed out, want chunk %d", r, ok, want)
		}
	}
	if p.Preferred() {
		t.Fatal("something is preferred though all that was is in work")
	}
	if r, _ := p.Take(0); r.Off != 1<<20 {
		t.Fatalf("%v comes behind what is preferred, want chunk 1", r)
	}
	p.SetAside(blockdev.Range{Off: 7 << 20, Len: 1 << 20})
	if p.Prefer(blockdev.Range{Off: 7 << 20, Len: 1}); p.Preferred() {
		t.Fatal("what cannot be read is preferred")
	}
	p.SetAside(blockdev.Range{Off: 5 << 20, Len: 1 << 20})
	p.RetryIn(blockdev.Range{Off: 7<<20 + 1, Len: 1})
	if p.Prefer(blockdev.Range{Off: 7 << 20, Len: 1}); !p.Preferred() {
		t.Fatal("what is to be tried again is not preferred")
	}
	if r, _ := p.Take(0); r.Off != 7<<20 {
		t.Fatalf("%v is handed out, want what is to be tried again", r)
	}
	if _, ok := p.Take(0); ok || !p.Aside() {
		t.Fatal("other chunks that are set aside are handed out too")
	}
}

// What comes to be preferred while it is looked at comes first again when that has left it to be done.
func TestPreferredChunkInWorkComesFirstWhenItIsLeft(t *testing.T) {
	p := NewPlan(8<<20, 1<<20)
	p.Touch(blockdev.Range{Len: 8 << 20})
	first, _ := p.Take(0)
	p.Prefer(first)
	p.Touch(first)
	if p.Preferred() {
		t.Fatal("it is handed out twice")
	}
	p.Differs(first, 0)
	if r, ok := p.Take(0); !ok || r != first {
		t.Fatalf("%v (%t) is handed out, want %v", r, ok, first)
	}
	p.Prefer(first)
	p.Differs(first, 0)
	if r, _ := p.Take(0); p.Preferred() || r == first {
		t.Fatalf("%v is handed out although it is done", r)
	}
}

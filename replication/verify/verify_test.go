package verify

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world is replicas as the model sees them: a number for the content of each block, and what cannot be read.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	blocks  int64
	content map[string][]uint64
	bad     map[string]map[int64]bool
	found   map[string]map[int64]bool // what differs or cannot be read, and is to be found
	hot     map[int64]bool            // blocks that clients write all the time
	looked  []int
}

const self = "alpha"

func newWorld(t *testing.T, seed uint64, targets ...string) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 3)), content: map[string][]uint64{}, bad: map[string]map[int64]bool{},
		found: map[string]map[int64]bool{}, hot: map[int64]bool{}}
	w.blocks = 1 + w.rnd.Int64N(4*ChunkSize/block)
	w.looked = make([]int, w.blocks)
	for _, n := range append([]string{self}, targets...) {
		w.content[n], w.bad[n], w.found[n] = make([]uint64, w.blocks), map[int64]bool{}, map[int64]bool{}
	}
	for range w.rnd.IntN(100) {
		w.hot[w.rnd.Int64N(w.blocks)] = true
	}
	for _, n := range targets {
		for range w.rnd.IntN(6) {
			from := w.rnd.Int64N(w.blocks)
			for b := from; b < min(from+1+w.rnd.Int64N(40), w.blocks); b++ {
				w.content[n][b], w.found[n][b] = 1+w.rnd.Uint64N(1000), true
			}
		}
		for range w.rnd.IntN(4) {
			b := w.rnd.Int64N(w.blocks)
			w.bad[n][b], w.found[n][b] = true, true
		}
	}
	if w.rnd.IntN(2) == 0 {
		b := w.rnd.Int64N(w.blocks)
		w.bad[self][b], w.found[self][b] = true, true
		for _, n := range targets {
			if !w.bad[n][b] {
				delete(w.found[n], b) // nothing to compare it with
			}
		}
	}
	return w
}

func (w *world) digests(node string, p Piece) (sums []byte) {
	for _, b := range blocks(p.Range) {
		v := w.content[node][b.Off/block]
		if !p.Ordered && w.hot[b.Off/block] && node != self {
			v += w.rnd.Uint64N(3) // a write is on its way
		}
		sums = binary.LittleEndian.AppendUint64(sums, v)
	}
	return sums
}

func (w *world) mine(p Piece) (m Mine) {
	m.Digests = w.digests(self, p)
	for _, b := range blocks(p.Range) {
		if w.bad[self][b.Off/block] {
			m.Bad = append(m.Bad, b)
		}
	}
	return m
}

func (w *world) theirs(node string, p Piece) Seen {
	if w.rnd.IntN(20) == 0 {
		return Seen{Unknown: true}
	}
	for _, b := range blocks(p.Range) {
		if w.bad[node][b.Off/block] {
			return Seen{Unreadable: true}
		}
	}
	return Seen{Digests: w.digests(node, p)}
}

// write is what a repair does; writing mends what cannot be read.
func (w *world) write(rep Repair) {
	for _, b := range blocks(rep.Range) {
		i := b.Off / block
		if w.bad[self][i] {
			w.t.Fatalf("%v is to be copied, which cannot be read here", b)
		}
		w.content[rep.Node][i] = w.content[self][i]
		delete(w.bad[rep.Node], i)
	}
}

// run plays a Run to its end, with answers in any order.
func (w *world) run(cfg Config) Result {
	cfg.Self, cfg.Size, cfg.DigestSize = self, w.blocks*block, 8
	r := New(cfg)
	var flying []Piece
	for steps := 0; !r.Done(); steps++ {
		if steps > 100000 {
			w.t.Fatal("it does not end")
		}
		r.SetBusy(w.rnd.IntN(2) == 0)
		if p, ok := r.Next(); ok {
			if p.Ordered && p.Range.Len > orderedBlocks*block {
				w.t.Fatalf("%v is looked at in order at once", p.Range)
			}
			if w.rnd.IntN(10) == 0 {
				r.Put(p)
				continue
			}
			flying = append(flying, p)
		}
		if most := maxPieces * (ChunkSize / block); len(r.todo) > most || len(flying) > maxPieces {
			w.t.Fatalf("%d pieces wait, %d are under way", len(r.todo), len(flying))
		}
		if len(flying) == 0 || w.rnd.IntN(2) == 0 && len(flying) < maxPieces {
			continue
		}
		i := w.rnd.IntN(len(flying))
		p := flying[i]
		flying = append(flying[:i], flying[i+1:]...)
		theirs := map[string]Seen{}
		for _, n := range r.Targets() {
			theirs[n] = w.theirs(n, p)
		}
		for _, b := range blocks(p.Range) {
			w.looked[b.Off/block]++
		}
		for _, rep := range r.Looked(p, w.mine(p), theirs) {
			if !cfg.Repair {
				w.t.Fatal("a repair without consent")
			}
			w.write(rep)
		}
	}
	return r.Result()
}

// Whatever the order of answers, broken streams and writes on their way: exactly what differs or cannot be read is found, each
// block once; with consent all of it is mended that the primary can read, else nothing is touched.
func TestExactlyWhatDiffersIsFoundAndMended(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			targets := []string{"beta", "gamma"}[:1+seed%2]
			w := newWorld(t, seed, targets...)
			res := w.run(Config{Targets: targets})
			if res.Compared != w.blocks*block || !res.Whole() {
				t.Fatalf("compared %d of %d", res.Compared, w.blocks*block)
			}
			for i, n := range w.looked {
				if n == 0 {
					t.Fatalf("block %d was not looked at", i)
				}
			}
			for _, n := range res.Nodes {
				if got := n.Different + n.Unreadable; got != int64(len(w.found[n.Node])) || n.Unreadable != int64(len(w.bad[n.Node])) || n.Repaired != 0 {
					t.Fatalf("%+v, want %d, of those %d unreadable", n, len(w.found[n.Node]), len(w.bad[n.Node]))
				}
			}
			kept := int64(0)
			for _, r := range res.Ranges {
				for _, b := range blocks(r.Range) {
					kept++
					if !w.found[r.Node][b.Off/block] || w.bad[r.Node][b.Off/block] != (r.Kind == Unreadable) {
						t.Fatalf("%+v is not so at %v", r, b)
					}
				}
			}
			if d, u, _ := res.Blocks(); !res.More && kept != d+u {
				t.Fatalf("%d blocks are named, %d were found", kept, d+u)
			}
			res = w.run(Config{Targets: targets, Repair: true})
			for _, n := range res.Nodes {
				left := int64(0)
				for b := range w.found[n.Node] {
					if w.bad[self][b] {
						left++ // nothing to mend it from
					}
				}
				if n.Different+n.Unreadable != int64(len(w.found[n.Node])) || n.Repaired != int64(len(w.found[n.Node]))-left {
					t.Fatalf("after repair %+v, want %d found and all but %d repaired", n, len(w.found[n.Node]), left)
				}
			}
		})
	}
}

// A target that leaves ends the waiting for it; with the last one the run is over. A disk that cannot be read at all costs
// few reads of single blocks in each chunk.
func TestLeavingAndDyingTargets(t *testing.T) {
	r := New(Config{Self: self, Size: 8 * ChunkSize, Targets: []string{"beta", "gamma"}, Left: map[string]string{"delta": "no member"}, DigestSize: 8})
	p, _ := r.Next()
	r.Leave("beta", "dropped")
	if r.Done() {
		t.Error("done with one target left")
	}
	r.Looked(p, Mine{Digests: make([]byte, 8*256)}, map[string]Seen{"gamma": {Digests: make([]byte, 8*256)}})
	r.Leave("gamma", "dropped")
	if res := r.Result(); !r.Done() || res.Whole() || res.Nodes[1].LeftOut != "dropped" || res.Nodes[2].LeftAt != ChunkSize || res.Nodes[3].LeftOut != "no member" {
		t.Errorf("done %t, %+v", r.Done(), res)
	}
	w := newWorld(t, 1, "beta")
	w.blocks = 2 * ChunkSize / block
	w.looked = make([]int, w.blocks)
	for _, n := range []string{self, "beta"} {
		w.content[n], w.bad[n] = make([]uint64, w.blocks), map[int64]bool{}
	}
	for b := range w.blocks {
		w.bad["beta"][b] = true
	}
	res := w.run(Config{Targets: []string{"beta"}})
	singles := 0
	for _, n := range w.looked {
		if n > 8 { // a chunk of 256 blocks was halved down to this one
			singles++
		}
	}
	if most := 2 * 2 * maxBad; singles > most {
		t.Errorf("%d blocks were read one by one, want %d at most", singles, most)
	}
	if res.Nodes[1].Unreadable != w.blocks {
		t.Errorf("%+v, all of %d blocks are bad", res.Nodes[1], w.blocks)
	}
}

// Clients have the disks for at least half of the time.
func TestPauseIsAsLongAsALookWhileClientsWork(t *testing.T) {
	r := New(Config{Self: self, Size: ChunkSize, Targets: []string{"beta"}, DigestSize: 8})
	if r.Pause(time.Millisecond) != 0 {
		t.Error("it pauses for nobody")
	}
	r.SetBusy(true)
	if r.Pause(time.Millisecond) != time.Millisecond || r.Pause(time.Hour) != maxPause {
		t.Error("it does not pause for as long as it looked, a second at most")
	}
	if _, ok := r.Next(); !ok {
		t.Fatal("nothing to look at")
	}
	if _, ok := r.Next(); ok {
		t.Error("two looks at a time while clients work")
	}
}

package standby

import (
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/order"
)

// Against a device that is a list of blocks: whatever is taken and found at whatever moment, what is known to be a hole was never
// written (R15).
func TestWhatIsKnownToBeAHoleWasNeverWritten(t *testing.T) {
	const n = 64
	known := 0
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var h Hole
		var q order.Queue
		var taken, written [n]bool // a block is written some time after the entry that writes it was taken
		type entry struct {
			item order.Item
			at   blockdev.Range
		}
		var under []*entry
		var found *blockdev.Range // of the look that is under way, as the filesystem answered
		var look uint64
		from, at := int64(0), int64(0)
		for range 200 {
			switch rng.IntN(7) {
			case 0, 1: // an entry is taken, mostly behind what is asked for
				off := rng.Int64N(n)
				if rng.IntN(4) > 0 {
					off = max(at-1-rng.Int64N(4), 0)
				}
				e := &entry{at: blockdev.Range{Off: off, Len: 1 + rng.Int64N(min(3, n-off))}}
				e.item.Range = e.at
				h.Overwrites(e.at)
				if q.Admit(&e.item) {
					under = append(under, e)
					for i := e.at.Off; i < e.at.End(); i++ {
						taken[i] = true
					}
				} else { // it waits for what it overlaps, which is written first: here it is taken as written with that
					for i := e.at.Off; i < e.at.End(); i++ {
						taken[i], written[i] = true, true
					}
					e = nil
				}
			case 2: // one returns
				if len(under) > 0 {
					i := rng.IntN(len(under))
					e := under[i]
					under = append(under[:i], under[i+1:]...)
					for i := e.at.Off; i < e.at.End(); i++ {
						written[i] = true
					}
					for more := q.Return(&e.item, nil); len(more) > 0; more = more[1:] {
						more = q.Return(more[0], more)
					}
				}
			case 3:
				r := blockdev.Range{Off: at, Len: min(2, n-at)}
				if k, ok := h.Begin(r, n, &q); ok && (found == nil || rng.IntN(2) == 0) { // else the older one answers, late
					look, from, found = k, at, nil
				}
			case 4: // the filesystem looks
				if look > 0 && found == nil {
					end := from
					for end < n && !written[end] {
						end++
					}
					found = &blockdev.Range{Off: from, Len: end - from}
				}
			case 5:
				if found != nil {
					if h.Found(look, *found, found.Len > 0); found.Len == 0 {
						h.data = blockdev.Range{} // here each look is of use
					}
					look, found = 0, nil
				}
			case 6:
				r := blockdev.Range{Off: at, Len: min(2, n-at)}
				if h.Covers(r) {
					known++
					for i := r.Off; i < r.End(); i++ {
						if taken[i] {
							t.Fatalf("seed %d: block %d is known to be a hole and was overwritten", seed, i)
						}
					}
				}
				if at += 2; at >= n || rng.IntN(40) == 0 {
					at = rng.Int64N(n / 2)
				}
			}
			if rng.IntN(150) == 0 {
				h.Clear() // what is looked for answers all the same
			}
		}
	}
	if known < 2000 {
		t.Errorf("a hole was known %d times", known)
	}
}

// A resync of a new disk asks once: its own writes, which follow behind, leave what lies ahead known.
func TestOneLookServesAResyncOfANewDisk(t *testing.T) {
	var h Hole
	var q order.Queue
	const size, chunk = 1000, 10
	look, ok := h.Begin(blockdev.Range{Len: chunk}, size, &q)
	if _, again := h.Begin(blockdev.Range{Len: chunk}, size, &q); !ok || again {
		t.Fatal("not one look began")
	}
	h.Found(look, blockdev.Range{Len: size}, true)
	for at := int64(0); at < size; at += chunk {
		if !h.Covers(blockdev.Range{Off: at, Len: chunk}) {
			t.Fatalf("at %d: it is not known", at)
		}
		if at >= 5*chunk {
			h.Overwrites(blockdev.Range{Off: at - 5*chunk, Len: chunk})
		}
	}
	h.known = blockdev.Range{Off: 100, Len: 800}
	h.cursor = 200
	if h.Overwrites(blockdev.Range{Off: 500, Len: 1}); h.known != (blockdev.Range{Off: 100, Len: 400}) {
		t.Errorf("a client wrote far ahead, and %v is known", h.known)
	}
	h.Clear()
	look, _ = h.Begin(blockdev.Range{Len: chunk}, size, &q)
	h.Found(look, blockdev.Range{Len: 50}, false)
	if _, ok := h.Begin(blockdev.Range{Off: 40, Len: chunk}, size, &q); ok {
		t.Error("a look begins where data was found")
	}
	if _, ok := h.Begin(blockdev.Range{Off: 50, Len: chunk}, size, &q); !ok {
		t.Error("no look begins behind the data that was found")
	}
}

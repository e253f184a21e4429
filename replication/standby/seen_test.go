package standby

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/order"
)

func blocks(first, n int64) blockdev.Range {
	return blockdev.Range{Off: first * blockdev.BlockSize, Len: n * blockdev.BlockSize}
}

// What was read for a digest is the old content of what is overwritten next, and of nothing that was overwritten meanwhile.
func TestOldContentIsWhatWasReadUnlessAnEntryCameBetween(t *testing.T) { // R18, R33
	for name, c := range map[string]struct {
		before, early, late blockdev.Range // an entry is under way when the reading begins, comes while it goes on, comes after
		again               bool           // what is there has to be read anew
	}{
		"nothing":               {},
		"under way":             {before: blocks(4, 1), again: true},
		"between":               {early: blocks(5, 1), again: true},
		"between, a part":       {early: blockdev.Range{Off: 5*blockdev.BlockSize + 512, Len: 512}, again: true},
		"after":                 {late: blocks(4, 1), again: true},
		"all of it":             {late: blocks(0, 20), again: true},
		"under way, elsewhere":  {before: blocks(40, 1)},
		"between, other blocks": {early: blocks(0, 4)},
		"after, other blocks":   {late: blocks(6, 9)},
	} {
		t.Run(name, func(t *testing.T) {
			var s Sights
			var q order.Queue
			if c.before.Len > 0 {
				q.Admit(&order.Item{Range: c.before})
			}
			g := s.Begin(blocks(2, 8), &q)
			if c.early.Len > 0 {
				s.Overwrites(c.early)
			}
			if g != nil {
				if _, buf := s.Old(blocks(4, 2)); buf != nil {
					t.Fatal("it is known before it was read")
				}
				s.Read(g, blockdev.NewBuf(8*blockdev.BlockSize))
			}
			if c.late.Len > 0 {
				s.Overwrites(c.late)
			}
			at, buf := s.Old(blocks(4, 2))
			if known := buf != nil; known == c.again || known && at != blocks(2, 8) {
				t.Fatalf("known: %t, of %v; to be read again: %t", known, at, c.again)
			}
			s.Overwrites(blocks(4, 2))
			if _, buf := s.Old(blocks(4, 1)); buf != nil {
				t.Fatal("it is known twice")
			}
		})
	}
}

func TestReadingsEndWithTheirStream(t *testing.T) { // R2, R18
	var s Sights
	var q order.Queue
	slow, quick := s.Begin(blocks(0, 2), &q), s.Begin(blocks(2, 2), &q)
	s.Read(quick, blockdev.NewBuf(2*blockdev.BlockSize))
	s.Clear()
	s.Read(slow, blockdev.NewBuf(2*blockdev.BlockSize)) // it returns when the stream is over
	if _, buf := s.Old(blocks(0, 1)); buf != nil {
		t.Error("what was read for an older stream counts")
	}
	if _, buf := s.Old(blocks(2, 1)); buf != nil {
		t.Error("what was read for an older stream counts")
	}
	if slow.buf != nil || quick.buf != nil {
		t.Error("their memory was not given back")
	}
}

func TestOldestReadingIsForgotten(t *testing.T) { // R28
	var s Sights
	var q order.Queue
	for i := range int64(maxSeen + 1) {
		s.Read(s.Begin(blocks(i, 1), &q), blockdev.NewBuf(blockdev.BlockSize))
	}
	if _, buf := s.Old(blocks(0, 1)); buf != nil || len(s.all) != maxSeen {
		t.Errorf("the first of %d readings is kept: %t; %d are", maxSeen+1, buf != nil, len(s.all))
	}
	if _, buf := s.Old(blocks(1, 1)); buf == nil {
		t.Error("the second one is not")
	}
	if s.Begin(blocks(0, seenBlocks+1), &q) != nil || s.Begin(blockdev.Range{Off: 512, Len: 4096}, &q) != nil {
		t.Error("a reading of too many blocks, or of parts, is kept")
	}
}

// A device whose entries take their time, in the order that order.Queue lets them: what counts as known is what the blocks
// hold when the entry begins that overwrites them.
func TestOldContentIsThatOfItsPlaceInTheOrder(t *testing.T) { // R18, R33
	known, unknown := 0, 0
	for seed := range uint64(300) {
		w := &seenWorld{t: t, rng: rand.New(rand.NewPCG(seed, 4))}
		for range 400 {
			w.step()
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		known, unknown = known+w.known, unknown+w.unknown
	}
	if known < 1000 || unknown < 1000 {
		t.Fatalf("%d entries knew what they overwrite, %d did not", known, unknown)
	}
}

const seenWorldBlocks = 12

type seenWorld struct {
	t              *testing.T
	rng            *rand.Rand
	s              Sights
	q              order.Queue
	disk           [seenWorldBlocks]byte
	running        []*seenEntry
	reading        []*Seen
	last           byte
	known, unknown int
}

type seenEntry struct {
	order.Item
	content byte
	at      blockdev.Range // of old
	old     *blockdev.Buf
}

func (w *seenWorld) step() {
	switch w.rng.IntN(4) {
	case 0:
		first := w.rng.Int64N(seenWorldBlocks)
		if g := w.s.Begin(blocks(first, 1+w.rng.Int64N(seenWorldBlocks-first)), &w.q); g != nil {
			w.reading = append(w.reading, g)
		}
	case 1:
		if n := len(w.reading); n > 0 {
			i := w.rng.IntN(n)
			g := w.reading[i]
			w.reading = append(w.reading[:i], w.reading[i+1:]...)
			w.s.Read(g, w.read(g.At))
		}
	case 2:
		w.last++
		first := w.rng.Int64N(seenWorldBlocks)
		e := &seenEntry{content: w.last}
		e.Owner, e.Range = e, blocks(first, 1+w.rng.Int64N(min(3, seenWorldBlocks-first)))
		e.at, e.old = w.s.Old(e.Range)
		w.s.Overwrites(e.Range)
		if w.q.Admit(&e.Item) {
			w.begin(e)
		}
	case 3:
		if n := len(w.running); n > 0 {
			i := w.rng.IntN(n)
			e := w.running[i]
			w.running = append(w.running[:i], w.running[i+1:]...)
			for b := e.Range.Off; b < e.Range.End(); b += blockdev.BlockSize {
				w.disk[b/blockdev.BlockSize] = e.content
			}
			for _, next := range w.q.Return(&e.Item, nil) {
				w.begin(next.Owner.(*seenEntry))
			}
		}
	}
}

// begin is where the old content of an entry is logged.
func (w *seenWorld) begin(e *seenEntry) {
	w.running = append(w.running, e)
	if e.old == nil {
		w.unknown++
		return
	}
	w.known++
	is := w.read(e.Range)
	if !bytes.Equal(e.old.Bytes()[e.Range.Off-e.at.Off:][:e.Range.Len], is.Bytes()) {
		w.t.Error(fmt.Errorf("%v does not hold what counts as its old content", e.Range))
	}
	is.Free()
	e.old.Free()
}

func (w *seenWorld) read(at blockdev.Range) *blockdev.Buf {
	buf := blockdev.NewBuf(int(at.Len))
	for i := range buf.Bytes() {
		buf.Bytes()[i] = w.disk[(at.Off+int64(i))/blockdev.BlockSize]
	}
	return buf
}

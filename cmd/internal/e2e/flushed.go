package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Flushed is a Record that knows what must survive the loss of power on every replica at once: of each block the last
// write that was acknowledged and flushed after it, or any sent later. Sectors of a block that was written and not
// flushed may be of different writes.
type Flushed struct {
	Record
	Survivors int // blocks of which some write is acknowledged and flushed
	order     []uint64
	spans     map[uint64]span
	may       map[int64][]uint64 // by block: the durable write (0: none), then those sent since
}

// NewFlushed begins a record.
func NewFlushed() *Flushed {
	return &Flushed{Record: newRecord(), spans: map[uint64]span{}, may: map[int64][]uint64{}}
}

// Begin notes a write that is about to be sent.
func (f *Flushed) Begin(seq uint64, block, blocks int64) {
	s := span{block, blocks}
	f.began(seq, s)
	f.spans[seq] = s
	for b := block; b < block+blocks; b++ {
		if f.may[b] == nil {
			f.may[b] = []uint64{0}
		}
		f.may[b] = append(f.may[b], seq)
	}
}

// Acked notes that a write was acknowledged; durable: it was sent with FUA.
func (f *Flushed) Acked(seq uint64, durable bool) error {
	if err := f.acked(seq); err != nil {
		return err
	}
	if durable {
		f.survives(seq)
		return nil
	}
	f.order = append(f.order, seq)
	return nil
}

// Mark is to be taken before a flush is sent, and given to Flush when it was acknowledged.
func (f *Flushed) Mark() []uint64 { return slices.Clone(f.order) }

// Flush notes that what was acknowledged at the mark is durable.
func (f *Flushed) Flush(mark []uint64) {
	for _, seq := range mark {
		f.survives(seq)
	}
	f.order = slices.DeleteFunc(f.order, func(seq uint64) bool { return f.spans[seq] == (span{}) })
}

// PowerLost notes that no flush from now on covers what was written so far: it may be gone, and is not written again.
func (f *Flushed) PowerLost() {
	f.order = nil
	clear(f.spans)
}

func (f *Flushed) survives(seq uint64) {
	s := f.spans[seq]
	delete(f.spans, seq)
	for b := s.block; b < s.block+s.blocks; b++ {
		if i := slices.Index(f.may[b], seq); i >= 0 {
			f.may[b] = f.may[b][i:]
			f.Survivors++
		}
	}
}

// CheckFlushed reads every block and returns those with anything else than they may hold, and how many acknowledged
// writes of blocks, never flushed, are gone, as they may.
func (f *Flushed) CheckFlushed(dev io.ReaderAt) (lost []Loss, gone int, err error) {
	const sector = 512
	p, want := make([]byte, StampSize), make([]byte, StampSize)
	for _, b := range slices.Sorted(maps.Keys(f.may)) {
		if _, err := dev.ReadAt(p, b*StampSize); err != nil {
			return lost, gone, fmt.Errorf("read block %d back: %w", b, err)
		}
		fits := make([]bool, StampSize/sector)
		for _, seq := range f.may[b] {
			clear(want)
			if seq > 0 {
				Stamp(want, b, seq)
			}
			for i := range fits {
				fits[i] = fits[i] || bytes.Equal(p[i*sector:][:sector], want[i*sector:][:sector])
			}
		}
		seq, err := readStamp(p, b)
		if slices.Contains(fits, false) {
			holds := fmt.Sprintf("write %d, it may hold %v", seq, f.may[b])
			if err != nil {
				holds = fmt.Sprintf("%v, it may hold %v", err, f.may[b])
			}
			lost = append(lost, Loss{Block: b, Acked: f.may[b][0], Holds: holds})
			continue
		}
		if err != nil || seq < f.Record.blocks[b].acked {
			gone++
		}
	}
	return lost, gone, nil
}

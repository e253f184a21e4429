package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// Feed keeps the payloads of the writes that a standby received last, feedLimit bytes of them, for the streams that it carries on, as
// long as there are any.
type Feed struct {
	users  atomic.Int32
	mu     sync.Mutex
	kept   []keptWrite // by place; from first on
	first  int
	bytes  int
	newest uint64
	over   error         // nothing more is kept
	more   chan struct{} // closed and replaced when something was kept, if somebody waits; nil: nobody does
}

// keptWrite is one write: its payload lies in buf, or in the batch that it came in.
type keptWrite struct {
	place  uint64
	n      int
	buf    *blockdev.Buf
	batch  *Batch
	pieces [][]byte
}

func (k *keptWrite) free() {
	if k.buf != nil {
		k.buf.Free()
	}
	if k.batch != nil {
		k.batch.Free()
	}
}

// feedMost bounds what small writes take beside their payloads: a primary lends none that is so many writes old.
const feedMost = 2 * lendRing

// NewFeed returns one that keeps nothing yet.
func NewFeed() *Feed { return new(Feed) }

// Begin has it keep what comes from now on, until End. Both are called once for each stream that is carried on.
func (f *Feed) Begin() { f.users.Add(1) }

// End lets go what is kept when nobody else needs it.
func (f *Feed) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users.Add(-1) == 0 {
		f.dropLocked()
	}
}

func (f *Feed) dropLocked() {
	for _, k := range f.kept[f.first:] {
		k.free()
	}
	f.kept, f.first, f.bytes = nil, 0, 0
}

// Keep keeps the payload of a write with a place, which was verified, and of b, which holds it, a reference.
func (f *Feed) Keep(b *Batch, w *wire.Frame) {
	if f.users.Load() == 0 {
		return
	}
	k := keptWrite{place: w.ID, n: w.PayloadLen()}
	if b.buf != nil && 2*b.placedLen() >= len(b.buf.Bytes()) { // else mostly copies of a resync are in it, which nobody is lent
		b.Ref()
		k.batch, k.pieces = b, w.Payload
	} else { // it lies in memory that is read into again when it is free, and is much larger
		k.buf = blockdev.NewBuf(k.n)
		to := k.buf.Bytes()
		for _, p := range w.Payload {
			to = to[copy(to, p):]
		}
		k.pieces = [][]byte{k.buf.Bytes()}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over != nil || f.users.Load() == 0 || k.place <= f.newest {
		k.free()
		return
	}
	f.kept, f.newest = append(f.kept, k), k.place
	f.bytes += k.n
	f.forgetLocked()
	f.wakeLocked()
}

// forgetLocked lets go what is beyond the limit.
func (f *Feed) forgetLocked() {
	for ; f.bytes > feedLimit || len(f.kept)-f.first > feedMost; f.first++ {
		f.bytes -= f.kept[f.first].n
		f.kept[f.first].free()
		f.kept[f.first] = keptWrite{}
	}
	if f.first > len(f.kept)/2 {
		n := copy(f.kept, f.kept[f.first:])
		clear(f.kept[n:])
		f.kept, f.first = f.kept[:n], 0
	}
}

func (f *Feed) wakeLocked() {
	if f.more != nil {
		close(f.more)
		f.more = nil
	}
}

// Close ends it: who waits gets an error.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over != nil {
		return
	}
	f.over = errors.New("the stream to this node, from which payloads are carried on, has ended")
	f.dropLocked()
	f.wakeLocked()
}

// take waits for a write and returns its payload, with a reference that the caller frees.
func (f *Feed) take(ctx context.Context, place uint64, n int64) (k keptWrite, err error) {
	for {
		k, wait, err := f.look(place, n)
		if wait == nil {
			return k, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return k, context.Cause(ctx)
		}
	}
}

func (f *Feed) look(place uint64, n int64) (k keptWrite, wait <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.over != nil:
		return k, nil, f.over
	case f.newest < place:
		if f.more == nil {
			f.more = make(chan struct{})
		}
		return k, f.more, nil
	}
	kept := f.kept[f.first:]
	i, ok := slices.BinarySearchFunc(kept, place, func(k keptWrite, p uint64) int { return cmp.Compare(k.place, p) })
	if !ok {
		return k, nil, fmt.Errorf("the payload of the write with place %d, to be carried on, is not kept any more", place)
	}
	if k = kept[i]; int64(k.n) != n {
		return keptWrite{}, nil, protocolError("a payload of %d bytes is to be carried on for place %d, the write there has %d", n, place, k.n)
	}
	if k.batch != nil {
		k.batch.Ref()
	} else {
		k.buf.Ref()
	}
	return k, nil, nil
}

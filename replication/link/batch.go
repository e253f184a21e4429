package link

import (
	"sync"
	"sync/atomic"

	"hacluster/replication/wire"
)

// Batch is a received message. Its frames and their payloads are valid while a reference is held; Recv returns it
// with one.
type Batch struct {
	wire.Batch

	in   incoming
	refs atomic.Int32
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

func newBatch() *Batch {
	b := batches.Get().(*Batch)
	b.refs.Store(1)
	return b
}

// Ref takes one more reference.
func (b *Batch) Ref() { b.refs.Add(1) }

// Free gives one reference back; the last one returns the memory. Freeing more often than referenced is a broken
// invariant and panics.
func (b *Batch) Free() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("link: Batch freed more often than referenced")
	}
	b.Reset()
	b.in.free()
	batches.Put(b)
}

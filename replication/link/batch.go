package link

import (
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// Batch is a received message. Its frames and their payloads are valid while a reference is held; Recv returns it
// with one.
type Batch struct {
	wire.Batch

	chunk *chunk        // in which small payloads lie, nil: none
	buf   *blockdev.Buf // in which large ones lie, aligned as a Buf is, nil: none
	piece [1][]byte
	refs  atomic.Int32
	// placed is how many bytes of payload are of writes with a place; 0: not counted yet.
	placed int
}

func (b *Batch) placedLen() int {
	if b.placed > 0 {
		return b.placed
	}
	for i := range b.Frames {
		if f := &b.Frames[i]; f.Kind == wire.Write && f.ID != 0 {
			b.placed += f.PayloadLen()
		}
	}
	return b.placed
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

func newBatch() *Batch {
	b := batches.Get().(*Batch)
	b.refs.Store(1)
	return b
}

// readPayload takes the n bytes of payload that the head, which was checked, demands.
func (b *Batch) readPayload(in *input, n int) error {
	switch {
	case n == 0:
		return nil
	case b.Packed:
		if err := b.unpack(in, n); err != nil {
			return err
		}
	case n < largePayload:
		in.ahead = chunkSize
		p, err := in.take(n)
		if err != nil {
			return within(err)
		}
		in.c.ref()
		b.chunk, b.piece[0] = in.c, p
	default:
		b.buf = blockdev.NewBuf(n)
		if err := in.into(b.buf.Bytes()); err != nil {
			return err
		}
		b.piece[0] = b.buf.Bytes()
	}
	b.SetPayload(b.piece[:])
	return nil
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
	if b.chunk != nil {
		b.chunk.free()
	}
	if b.buf != nil {
		b.buf.Free()
	}
	b.chunk, b.buf, b.piece[0], b.placed = nil, nil, nil, 0
	batches.Put(b)
}

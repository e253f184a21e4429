package nbd

import (
	"encoding/binary"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

const (
	maxBatch      = 64      // answers in one call
	maxBatchBytes = 4 << 20 // and about this much data, so that a lease is looked at often enough
	maxHeader     = 72      // of one answer: an error chunk with its text
	maxPieces     = 2 * maxBatch
)

// batch is a number of answers on their way to the socket: headers next to each other in hdr, data where it is.
type batch struct {
	reqs   []*request
	hdr    []byte // never grows: pieces point into it
	open   int    // where in hdr the last piece begins; -1: the last piece is data
	pieces [][]byte
	sent   int // pieces[:sent] are gone
	bytes  int
}

// pending reports whether something is left to be written.
func (b *batch) pending() bool { return b.sent < len(b.pieces) }

// reset empties the batch and returns its requests, valid until the next fill.
func (b *batch) reset() []*request {
	rs := b.reqs
	clear(b.pieces)
	b.reqs, b.hdr, b.pieces = b.reqs[:0], b.hdr[:0], b.pieces[:0]
	b.open, b.sent, b.bytes = -1, 0, 0
	return rs
}

// fill takes finished requests from the connection's queue; the caller holds its mu. The batch is empty.
func (b *batch) fill(c *conn) {
	for len(b.reqs) < maxBatch && b.bytes < maxBatchBytes {
		r := c.queue.pop()
		if r == nil {
			return
		}
		b.reqs = append(b.reqs, r)
		b.add(r, c.structured)
	}
}

// add appends one answer.
func (b *batch) add(r *request, structured bool) {
	w := &r.wire
	start := len(b.hdr)
	var data []byte
	switch {
	case structured && (w.Cmd == nbdproto.CmdRead || w.Cmd == nbdproto.CmdBlockStatus):
		data = b.addChunk(r)
	case w.Cmd == nbdproto.CmdRead && r.errno == nbdproto.OK && r.Buf != nil:
		b.hdr = nbdproto.AppendSimple(b.hdr, r.errno, w.Cookie)
		data = r.Buf.Bytes()
	default:
		b.hdr = nbdproto.AppendSimple(b.hdr, r.errno, w.Cookie)
	}
	b.header(start)
	if len(data) > 0 {
		b.pieces = append(b.pieces, data)
		b.bytes += len(data)
		b.open = -1
	}
}

// addChunk appends the header of a structured answer, which is always a single chunk, so that DF is always honoured.
func (b *batch) addChunk(r *request) (data []byte) {
	ch := nbdproto.Chunk{Flags: nbdproto.ChunkDone, Cookie: r.wire.Cookie}
	switch {
	case r.errno != nbdproto.OK:
		text := r.errno.Error()
		ch.Type, ch.Len = nbdproto.ChunkError, uint32(6+len(text))
		b.hdr = nbdproto.AppendChunk(b.hdr, ch)
		b.hdr = binary.BigEndian.AppendUint32(b.hdr, uint32(r.errno))
		b.hdr = binary.BigEndian.AppendUint16(b.hdr, uint16(len(text)))
		b.hdr = append(b.hdr, text...)
	case r.wire.Cmd == nbdproto.CmdBlockStatus:
		ch.Type, ch.Len = nbdproto.ChunkBlockStatus, uint32(len(r.extra))
		b.hdr = nbdproto.AppendChunk(b.hdr, ch)
		data = r.extra
	case r.Buf == nil: // nothing was asked for
		ch.Type = nbdproto.ChunkNone
		b.hdr = nbdproto.AppendChunk(b.hdr, ch)
	default:
		data = r.Buf.Bytes()
		ch.Type, ch.Len = nbdproto.ChunkOffsetData, uint32(8+len(data))
		b.hdr = nbdproto.AppendChunk(b.hdr, ch)
		b.hdr = binary.BigEndian.AppendUint64(b.hdr, r.wire.Offset)
	}
	return data
}

// header makes hdr[start:] a piece, or a part of the piece before it.
func (b *batch) header(start int) {
	if b.open >= 0 {
		b.pieces[len(b.pieces)-1] = b.hdr[b.open:]
		return
	}
	b.open = start
	b.pieces = append(b.pieces, b.hdr[start:])
}

// advance notes that n more bytes were written.
func (b *batch) advance(n int) {
	for n > 0 {
		p := b.pieces[b.sent]
		if n < len(p) {
			b.pieces[b.sent] = p[n:]
			return
		}
		n -= len(p)
		b.sent++
	}
}

package nbd

import (
	"context"
	"encoding/binary"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// contextID is the number under which base:allocation is spoken of.
const contextID = 1

// maxExtents bounds one answer of BLOCK_STATUS; the client asks again for the rest.
const maxExtents = 1024

// blockStatus answers with holes and data. It runs in the reader: a client that asks for much waits for it alone.
func (c *conn) blockStatus(ctx context.Context, r *request) error {
	if err := c.gate(ctx); err != nil {
		return err
	}
	limit := maxExtents
	if r.wire.Flags&nbdproto.CmdReqOne != 0 {
		limit = 1
	}
	w := extentWriter{buf: binary.BigEndian.AppendUint32(r.extra[:0], contextID), limit: limit}
	if err := c.export.Extents(r.Range, w.add); err != nil {
		r.errno = errnoOf(blockdev.OpRead, err)
	} else if w.close(); w.count == 0 {
		r.errno = nbdproto.EIO // the export broke its promise to cover the range
	}
	r.extra = w.buf
	c.answer(r)
	return nil
}

// extentWriter joins neighbouring extents of one kind, since each costs the client a round.
type extentWriter struct {
	buf   []byte
	limit int
	count int // descriptors in buf
	len   int64
	hole  bool
}

func (w *extentWriter) add(e blockdev.Range, hole bool) bool {
	if w.len > 0 && hole != w.hole {
		w.close()
	}
	if w.count == w.limit {
		return false
	}
	w.hole = hole
	w.len += e.Len
	return true
}

// close writes the extent that is being gathered.
func (w *extentWriter) close() {
	if w.len == 0 || w.count == w.limit {
		return
	}
	var state uint32
	if w.hole {
		state = nbdproto.StateHole | nbdproto.StateZero
	}
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(w.len)) // at most what the request asked for, 32 bits
	w.buf = binary.BigEndian.AppendUint32(w.buf, state)
	w.count, w.len = w.count+1, 0
}

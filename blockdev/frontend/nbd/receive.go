package nbd

import (
	"context"
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// receive reads requests and hands them to the export until the client is done or the connection dies.
func (c *conn) receive(ctx context.Context) error {
	defer c.push()
	for {
		if c.hot != nil {
			c.hot.Alone(c.sole && c.in.buffered() == 0)
		}
		b, err := c.in.next(nbdproto.RequestLen)
		if err != nil {
			return err
		}
		req := nbdproto.ParseRequest(b)
		if req.Magic != nbdproto.MagicRequest {
			return fmt.Errorf("request magic is %#x: the client lost its place", req.Magic)
		}
		if req.Cmd == nbdproto.CmdDisc {
			return errDone
		}
		r, err := c.take(ctx)
		if err != nil {
			return err
		}
		r.wire, r.errno = req, nbdproto.OK
		if err := c.dispatch(ctx, r); err != nil {
			return err
		}
	}
}

// take returns a free request as soon as one more may be in flight.
func (c *conn) take(ctx context.Context) (r *request, err error) {
	c.mu.Lock()
	if c.inflight >= c.srv.cfg.MaxRequestsInFlight {
		c.mu.Unlock()
		err := c.await(ctx, func() bool { return c.inflight < c.srv.cfg.MaxRequestsInFlight })
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	c.inflight++
	c.sole = c.inflight == 1
	if r = c.free; r == nil {
		return newRequest(c), nil
	}
	c.free, r.next = r.next, nil
	return r, nil
}

// dispatch brings one request to the export, or to its answer when it is refused or there is nothing to do. An error
// ends the connection.
func (c *conn) dispatch(ctx context.Context, r *request) error {
	if r.errno = c.check(&r.wire); r.errno != nbdproto.OK {
		return c.refuse(r)
	}
	// An empty range asks for nothing, and in range it gets that: success, as with qemu's server. BLOCK_STATUS, whose
	// answer cannot be empty, was refused by check.
	if r.wire.Len == 0 && r.wire.Cmd != nbdproto.CmdFlush {
		c.answer(r)
		return nil
	}
	r.Range = blockdev.Range{Off: int64(r.wire.Offset), Len: int64(r.wire.Len)}
	r.FUA = r.wire.Flags&nbdproto.CmdFUA != 0
	r.Unmap, r.Err, r.Tag = false, nil, r.wire.Cookie
	switch r.wire.Cmd {
	case nbdproto.CmdRead:
		r.Op = blockdev.OpRead
		if err := c.hold(ctx, r); err != nil {
			return err
		}
	case nbdproto.CmdWrite:
		r.Op = blockdev.OpWrite
		if err := c.holdPayload(ctx, r); err != nil {
			return err
		}
	case nbdproto.CmdTrim:
		r.Op, r.Unmap = blockdev.OpZero, true
	case nbdproto.CmdWriteZeroes:
		r.Op, r.Unmap = blockdev.OpZero, r.wire.Flags&nbdproto.CmdNoHole == 0
	case nbdproto.CmdFlush:
		r.Op, r.Range = blockdev.OpFlush, blockdev.Range{}
	case nbdproto.CmdBlockStatus:
		return c.blockStatus(ctx, r)
	case nbdproto.CmdCache: // the page cache knows better
		c.answer(r)
		return nil
	}
	return c.admit(ctx, r)
}

// admit hands the request to the export: the point from which its effect is the volume's affair.
func (c *conn) admit(ctx context.Context, r *request) error {
	if err := c.gateOfReader(ctx); err != nil {
		c.dropData(r)
		return err
	}
	c.mu.Lock()
	c.admitted++
	c.mu.Unlock()
	r.More = c.gatherer != nil && c.in.hasRequest()
	if r.More { // a later request without More need not take it along: it may be a read, or wait itself for this one
		c.held = true
	}
	c.export.Submit(&r.Request)
	return nil
}

// push sends on what waits for the next request, before the reader waits itself.
func (c *conn) push() {
	if c.held {
		c.held = false
		c.gatherer.Push()
	}
}

// hold takes memory for the request's data.
func (c *conn) hold(ctx context.Context, r *request) error {
	n := weight(r.Range.Len)
	if !c.srv.budget.take(c.account, n) {
		c.push()
		if err := c.srv.budget.acquire(ctx, c.account, n); err != nil {
			return err
		}
	}
	r.held = n
	r.Buf = blockdev.NewBuf(int(r.Range.Len))
	return nil
}

// holdPayload receives a write's data. A client that leaves within it has written nothing (N22).
func (c *conn) holdPayload(ctx context.Context, r *request) error {
	err := c.hold(ctx, r)
	if err != nil {
		return err
	}
	if r.Sum, err = c.in.payload(r.Buf.Bytes()); err != nil {
		c.dropData(r)
	}
	return err
}

// refuse answers with r.errno; a write's payload is read over first, so that the connection stays in step.
func (c *conn) refuse(r *request) error {
	if r.wire.Cmd == nbdproto.CmdWrite {
		if int64(r.wire.Len) > int64(c.srv.cfg.MaxPayload) {
			return fmt.Errorf("write of %d bytes, the limit is %d", r.wire.Len, c.srv.cfg.MaxPayload)
		}
		if err := c.in.discard(int(r.wire.Len)); err != nil {
			return err
		}
	}
	c.answer(r)
	return nil
}

// allowed names, for each command, the flags that it may carry. FUA has a meaning for changes only and is ignored
// elsewhere, as the protocol says.
var allowed = map[nbdproto.Cmd]nbdproto.CmdFlags{
	nbdproto.CmdRead:        nbdproto.CmdFUA | nbdproto.CmdDF,
	nbdproto.CmdWrite:       nbdproto.CmdFUA,
	nbdproto.CmdFlush:       nbdproto.CmdFUA,
	nbdproto.CmdTrim:        nbdproto.CmdFUA,
	nbdproto.CmdCache:       nbdproto.CmdFUA,
	nbdproto.CmdWriteZeroes: nbdproto.CmdFUA | nbdproto.CmdNoHole | nbdproto.CmdFastZero,
	nbdproto.CmdBlockStatus: nbdproto.CmdFUA | nbdproto.CmdReqOne,
}

// check decides from the header alone whether a request may go on. Nothing was allocated for it yet.
func (c *conn) check(w *nbdproto.Request) nbdproto.Errno {
	flags, known := allowed[w.Cmd] // RESIZE is not known
	if !known || w.Flags&^flags != 0 || (w.Flags&nbdproto.CmdDF != 0 && !c.structured) {
		return nbdproto.EINVAL
	}
	changes := w.Cmd == nbdproto.CmdWrite || w.Cmd == nbdproto.CmdTrim || w.Cmd == nbdproto.CmdWriteZeroes
	switch {
	case w.Cmd == nbdproto.CmdFlush: // its offset and length mean nothing (N28)
		return nbdproto.OK
	case changes && c.readOnly:
		return nbdproto.EPERM
	case w.Offset > uint64(c.size) || uint64(w.Len) > uint64(c.size)-w.Offset:
		if w.Cmd == nbdproto.CmdWrite {
			return nbdproto.ENOSPC
		}
		return nbdproto.EINVAL
	case (w.Cmd == nbdproto.CmdRead || w.Cmd == nbdproto.CmdWrite) && int64(w.Len) > int64(c.srv.cfg.MaxPayload):
		return nbdproto.EINVAL
	case w.Cmd == nbdproto.CmdBlockStatus && (!c.allocation || w.Len == 0):
		return nbdproto.EINVAL
	case w.Flags&nbdproto.CmdFastZero != 0 && w.Len > 0:
		r := blockdev.Range{Off: int64(w.Offset), Len: int64(w.Len)}
		if c.fastZero == nil || !c.fastZero(r, w.Flags&nbdproto.CmdNoHole == 0) {
			return nbdproto.ENOTSUP
		}
	}
	return nbdproto.OK
}

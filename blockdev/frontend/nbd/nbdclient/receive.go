package nbdclient

import (
	"encoding/binary"
	"fmt"
	"io"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// maxStatus is the longest BLOCK_STATUS answer that is taken.
const maxStatus = 1 << 20

// receive gives answers to their calls until the connection dies, then ends what is left.
func (c *Client) receive() {
	var err error
	for err == nil {
		err = c.reply()
	}
	c.fail(err)
	c.mu.Lock()
	left := c.pending
	c.pending = nil
	c.mu.Unlock()
	close(c.dead)
	for _, k := range left {
		<-c.window
		k.end(c.lost(k.Op))
	}
}

// reply reads one simple reply, or one chunk of a structured one. An error means that the connection is of no more use.
func (c *Client) reply() error {
	var b [nbdproto.StructuredLen]byte
	if _, err := io.ReadFull(c.in, b[:nbdproto.SimpleLen]); err != nil {
		return err
	}
	c.answers.Add(1)
	switch magic := binary.BigEndian.Uint32(b[:]); {
	case magic == nbdproto.MagicSimpleReply:
		return c.simple(nbdproto.Errno(binary.BigEndian.Uint32(b[4:])), binary.BigEndian.Uint64(b[8:]))
	case magic == nbdproto.MagicStructuredReply && c.structured:
		if _, err := io.ReadFull(c.in, b[nbdproto.SimpleLen:]); err != nil {
			return err
		}
		return c.chunk(nbdproto.ParseChunk(b[:]))
	default:
		return fmt.Errorf("reply magic is %#x", magic)
	}
}

// call returns the call that cookie names; the last reply takes it out.
func (c *Client) call(cookie uint64, last bool) (*Call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.pending[cookie]
	if k == nil {
		return nil, fmt.Errorf("reply to request %d, which is not in flight", cookie)
	}
	if last {
		delete(c.pending, cookie)
	}
	return k, nil
}

func (c *Client) simple(errno nbdproto.Errno, cookie uint64) error {
	k, err := c.call(cookie, false)
	if err != nil {
		return err
	}
	if k.Op.Cmd == nbdproto.CmdRead {
		if c.structured {
			return fmt.Errorf("simple reply to read %d although structured ones were agreed on", cookie)
		}
		if errno == nbdproto.OK {
			if _, err := io.ReadFull(c.in, k.Op.Data); err != nil {
				return err
			}
			k.got = k.Op.Range.Len
		}
	}
	if errno != nbdproto.OK {
		k.refused(errno)
	}
	return c.finish(k, cookie)
}

func (k *Call) refused(e nbdproto.Errno) {
	k.err = &OpError{Cmd: k.Op.Cmd, Range: k.Op.Range, Errno: e}
}

// finish ends a call whose last reply has come; k.err holds its outcome.
func (c *Client) finish(k *Call, cookie uint64) error {
	if k.Op.Cmd == nbdproto.CmdRead && k.err == nil && k.got != k.Op.Range.Len {
		return fmt.Errorf("read %d of %d bytes was answered with %d", cookie, k.Op.Range.Len, k.got)
	}
	if _, err := c.call(cookie, true); err != nil {
		return err
	}
	<-c.window
	k.end(k.err)
	return nil
}

func (c *Client) chunk(h nbdproto.Chunk) error {
	k, err := c.call(h.Cookie, false)
	if err != nil {
		return err
	}
	read := k.Op.Cmd == nbdproto.CmdRead
	switch {
	case nbdproto.IsErrorChunk(h.Type):
		err = c.errorChunk(k, h.Len)
	case h.Type == nbdproto.ChunkNone && h.Len == 0:
	case h.Type == nbdproto.ChunkOffsetData && read && h.Len > 8:
		err = c.dataChunk(k, int64(h.Len)-8)
	case h.Type == nbdproto.ChunkOffsetHole && read && h.Len == 12:
		err = c.holeChunk(k)
	case h.Type == nbdproto.ChunkBlockStatus && k.Op.Cmd == nbdproto.CmdBlockStatus && h.Len >= 12 && h.Len <= maxStatus:
		err = c.statusChunk(k, int(h.Len))
	default:
		err = fmt.Errorf("chunk %+v does not answer command %d", h, k.Op.Cmd)
	}
	if err != nil || h.Flags&nbdproto.ChunkDone == 0 {
		return err
	}
	return c.finish(k, h.Cookie)
}

// part returns the part of a read's buffer that a chunk speaks of.
func (k *Call) part(off uint64, n int64) ([]byte, error) {
	r := blockdev.Range{Off: int64(off) - k.Op.Range.Off, Len: n}
	if off > 1<<62 || !r.Within(k.Op.Range.Len) {
		return nil, fmt.Errorf("chunk [%d,+%d) lies outside the read %v", off, n, k.Op.Range)
	}
	k.got += n
	return k.Op.Data[r.Off:r.End()], nil
}

func (c *Client) dataChunk(k *Call, n int64) error {
	var b [8]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	p, err := k.part(binary.BigEndian.Uint64(b[:]), n)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(c.in, p)
	return err
}

func (c *Client) holeChunk(k *Call) error {
	var b [12]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	p, err := k.part(binary.BigEndian.Uint64(b[:]), int64(binary.BigEndian.Uint32(b[8:])))
	clear(p)
	return err
}

func (c *Client) errorChunk(k *Call, n uint32) error {
	if n < 6 || n > nbdproto.MaxName {
		return fmt.Errorf("error chunk of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.in, b); err != nil {
		return err
	}
	k.refused(nbdproto.Errno(binary.BigEndian.Uint32(b)))
	return nil
}

func (c *Client) statusChunk(k *Call, n int) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(c.in, b); err != nil {
		return err
	}
	off := k.Op.Range.Off
	for b = b[4:]; len(b) >= 8; b = b[8:] {
		e := Extent{Range: blockdev.Range{Off: off, Len: int64(binary.BigEndian.Uint32(b))}, State: binary.BigEndian.Uint32(b[4:])}
		if e.Range.Len == 0 {
			return fmt.Errorf("empty extent at %d", off)
		}
		k.Extents = append(k.Extents, e)
		off = e.Range.End()
	}
	return nil
}

package nbdclient

import (
	"errors"
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// starter is what the calls below need: a Client, or a Reconnecting.
type starter interface {
	run(Op) ([]Extent, error)
}

func (c *Client) run(op Op) ([]Extent, error) {
	k := c.Start(op)
	err := k.Wait()
	return k.Extents, err
}

// pieces runs op in parts of at most limit bytes and returns how many bytes were done.
func pieces(s starter, op Op, limit int) (n int, err error) {
	data := op.Data
	for first := true; first || len(data) > 0; first = false {
		k := min(len(data), limit)
		op.Range.Len, op.Data = int64(k), data[:k]
		if _, err := s.run(op); err != nil {
			return n, err
		}
		op.Range.Off += int64(k)
		data = data[k:]
		n += k
	}
	return n, nil
}

// inRange refuses what reaches outside before it is sent: a range is 32 bits on the wire, and Device promises ErrRange.
func inRange(cmd nbdproto.Cmd, r blockdev.Range, size int64) error {
	if !r.Within(size) {
		return fmt.Errorf("nbd command %d on %v of %d bytes: %w", cmd, r, size, blockdev.ErrRange)
	}
	return nil
}

func rw(s starter, cmd nbdproto.Cmd, fl nbdproto.CmdFlags, p []byte, off, size int64, limit int) (int, error) {
	r := blockdev.Range{Off: off, Len: int64(len(p))}
	if err := inRange(cmd, r, size); err != nil {
		return 0, err
	}
	return pieces(s, Op{Cmd: cmd, Flags: fl, Range: r, Data: p}, limit)
}

// maxZero keeps the parts of a long zeroing aligned.
const maxZero = 1 << 31

func zero(s starter, cmd nbdproto.Cmd, fl nbdproto.CmdFlags, r blockdev.Range, size int64) error {
	if err := inRange(cmd, r, size); err != nil {
		return err
	}
	for first := true; first || r.Len > 0; first = false {
		part := blockdev.Range{Off: r.Off, Len: min(r.Len, maxZero)}
		if _, err := s.run(Op{Cmd: cmd, Flags: fl, Range: part}); err != nil {
			return err
		}
		r.Off, r.Len = part.End(), r.Len-part.Len
	}
	return nil
}

func status(s starter, r blockdev.Range, size int64) (all []Extent, err error) {
	if err := inRange(nbdproto.CmdBlockStatus, r, size); err != nil {
		return nil, err
	}
	for r.Len > 0 {
		part := blockdev.Range{Off: r.Off, Len: min(r.Len, maxZero)}
		es, err := s.run(Op{Cmd: nbdproto.CmdBlockStatus, Range: part})
		if err != nil {
			return all, err
		}
		if len(es) == 0 {
			return all, errors.New("the server answered BLOCK_STATUS without a context")
		}
		for _, e := range es { // the last one may reach further than was asked
			e.Range.Len = min(e.Range.Len, r.End()-e.Range.Off)
			if e.Range.Len <= 0 {
				break
			}
			all = append(all, e)
		}
		end := all[len(all)-1].Range.End()
		r.Off, r.Len = end, r.End()-end
	}
	return all, nil
}

// ReadAt reads, in several requests when p is larger than the server takes.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	return rw(c, nbdproto.CmdRead, 0, p, off, c.size, c.maxPayload)
}

// WriteAt writes.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	return rw(c, nbdproto.CmdWrite, 0, p, off, c.size, c.maxPayload)
}

// WriteFUA writes and returns when the data is durable.
func (c *Client) WriteFUA(p []byte, off int64) (int, error) {
	return rw(c, nbdproto.CmdWrite, nbdproto.CmdFUA, p, off, c.size, c.maxPayload)
}

// Flush makes durable what was answered before.
func (c *Client) Flush() error {
	_, err := c.run(Op{Cmd: nbdproto.CmdFlush})
	return err
}

// Trim discards a range.
func (c *Client) Trim(r blockdev.Range, fl nbdproto.CmdFlags) error {
	return zero(c, nbdproto.CmdTrim, fl, r, c.size)
}

// WriteZeroes zeroes a range; flags may be CmdFUA, CmdNoHole and CmdFastZero.
func (c *Client) WriteZeroes(r blockdev.Range, fl nbdproto.CmdFlags) error {
	return zero(c, nbdproto.CmdWriteZeroes, fl, r, c.size)
}

// Zero is WriteZeroes in the words of blockdev.Device.
func (c *Client) Zero(r blockdev.Range, unmap bool) error { return c.WriteZeroes(r, zeroFlags(unmap)) }

func zeroFlags(unmap bool) nbdproto.CmdFlags {
	if unmap {
		return 0
	}
	return nbdproto.CmdNoHole
}

// BlockStatus returns the extents of r, in order and without gaps.
func (c *Client) BlockStatus(r blockdev.Range) ([]Extent, error) { return status(c, r, c.size) }

// Extents is BlockStatus in the words of blockdev.Mapper. Of a server that knows no holes, all is data.
func (c *Client) Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error {
	if err := inRange(nbdproto.CmdBlockStatus, r, c.size); err != nil {
		return err
	}
	if !c.allocation {
		if r.Len > 0 {
			fn(r, false)
		}
		return nil
	}
	es, err := c.BlockStatus(r)
	if err != nil {
		return err
	}
	for _, e := range es {
		if !fn(e.Range, e.State&nbdproto.StateZero != 0) {
			break
		}
	}
	return nil
}

package nbdclient

import (
	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// ReadAt reads.
func (r *Reconnecting) ReadAt(p []byte, off int64) (int, error) {
	return rw(r, nbdproto.CmdRead, 0, p, off, r.size.Load(), r.limit)
}

// WriteAt writes.
func (r *Reconnecting) WriteAt(p []byte, off int64) (int, error) {
	return rw(r, nbdproto.CmdWrite, 0, p, off, r.size.Load(), r.limit)
}

// WriteFUA writes and returns when the data is durable.
func (r *Reconnecting) WriteFUA(p []byte, off int64) (int, error) {
	return rw(r, nbdproto.CmdWrite, nbdproto.CmdFUA, p, off, r.size.Load(), r.limit)
}

// Flush makes durable what was answered before.
func (r *Reconnecting) Flush() error {
	_, err := r.run(Op{Cmd: nbdproto.CmdFlush})
	return err
}

// Trim discards a range.
func (r *Reconnecting) Trim(g blockdev.Range, fl nbdproto.CmdFlags) error {
	return zero(r, nbdproto.CmdTrim, fl, g, r.size.Load())
}

// WriteZeroes zeroes a range.
func (r *Reconnecting) WriteZeroes(g blockdev.Range, fl nbdproto.CmdFlags) error {
	return zero(r, nbdproto.CmdWriteZeroes, fl, g, r.size.Load())
}

// Zero is WriteZeroes in the words of blockdev.Device.
func (r *Reconnecting) Zero(g blockdev.Range, unmap bool) error {
	return r.WriteZeroes(g, zeroFlags(unmap))
}

// BlockStatus returns the extents of g.
func (r *Reconnecting) BlockStatus(g blockdev.Range) ([]Extent, error) {
	return status(r, g, r.size.Load())
}

package filedev

import (
	"unsafe"

	"hacluster/blockdev"
)

// align is what O_DIRECT is given: no disk in use wants more, and blocks of this size are what replicas compare.
const align = blockdev.BlockSize

// bounceLen is the size of an aligned buffer between unaligned memory and the disk.
const bounceLen = 1 << 20

func aligned(p []byte, off int64) bool {
	return off%align == 0 && len(p)%align == 0 && (len(p) == 0 || uintptr(unsafe.Pointer(&p[0]))%align == 0)
}

func allAligned(segments [][]byte, off int64) bool {
	if off%align != 0 {
		return false
	}
	for _, s := range segments {
		if !aligned(s, 0) {
			return false
		}
	}
	return true
}

// readBounced reads the blocks around p. They exist: the size is a multiple of align.
func (d *Dev) readBounced(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	buf := blockdev.NewBuf(min(bounceLen, int(roundUp(off+int64(len(p)))-roundDown(off))))
	defer buf.Free()
	done := 0
	for done < len(p) {
		at := off + int64(done)
		skip := int(at % align)
		n := min(len(p)-done, bounceLen-skip)
		part := buf.Bytes()[:roundUp(int64(skip+n))]
		if _, err := d.pread(part, roundDown(at)); err != nil {
			return done, err
		}
		copy(p[done:done+n], part[skip:])
		done += n
	}
	return done, nil
}

// writeBounced writes p in up to three parts: the rest of a first block, whole blocks, the beginning of a last block.
func (d *Dev) writeBounced(p []byte, off int64, do writeFunc) (int, error) {
	done := 0
	for done < len(p) {
		at, rest := off+int64(done), p[done:]
		var n int
		var err error
		switch skip := int(at % align); {
		case skip != 0 || len(rest) < align:
			n, err = d.writeEdge(rest[:min(len(rest), align-skip)], at, do)
		case aligned(rest[:len(rest)/align*align], at):
			n, err = do(rest[:len(rest)/align*align], at)
		default:
			n, err = d.writeCopied(rest[:min(bounceLen, len(rest)/align*align)], at, do)
		}
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// writeEdge writes p, a part of one block. Writers of other parts of the same block wait: each would write back what
// it read of the other's part. Whole blocks do not come here; their overlap with p is the caller's to order.
func (d *Dev) writeEdge(p []byte, off int64, do writeFunc) (int, error) {
	buf := blockdev.NewBuf(align)
	defer buf.Free()
	block := buf.Bytes()
	start := roundDown(off)
	d.edges.lock(start)
	defer d.edges.unlock(start)
	if _, err := d.pread(block, start); err != nil {
		return 0, err
	}
	copy(block[off-start:], p)
	if _, err := do(block, start); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writeCopied writes whole blocks from unaligned memory.
func (d *Dev) writeCopied(p []byte, off int64, do writeFunc) (int, error) {
	buf := blockdev.NewBuf(len(p))
	defer buf.Free()
	copy(buf.Bytes(), p)
	return do(buf.Bytes(), off)
}

// writeGathered writes segments of any alignment, cut where the disk's blocks begin.
func (d *Dev) writeGathered(segments [][]byte, total int, off int64) (int, error) {
	buf := blockdev.NewBuf(min(bounceLen, total))
	defer buf.Free()
	done := 0
	for done < total {
		at := off + int64(done)
		part := buf.Bytes()[:min(total-done, bounceLen-int(at%align))]
		segments = gather(part, segments)
		n, err := d.write(part, at, d.pwrite)
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// gather fills p from the segments and returns what is left of them, without changing the caller's slice.
func gather(p []byte, segments [][]byte) [][]byte {
	for len(p) > 0 {
		n := copy(p, segments[0])
		p = p[n:]
		if n == len(segments[0]) {
			segments = segments[1:]
			continue
		}
		rest := append([][]byte{segments[0][n:]}, segments[1:]...)
		return rest
	}
	return segments
}

func roundDown(off int64) int64 { return off &^ (align - 1) }
func roundUp(off int64) int64   { return (off + align - 1) &^ (align - 1) }

package replication

import (
	"bytes"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
	"hacluster/replication/primary"
)

// startLocal puts an operation on the local backing: at once where that does not wait for a disk, else in a worker.
func (t *Tenure) startLocal(o *op, worker bool) []primary.Action {
	quick := t.r.cfg.Inline && o.Kind == blockdev.OpWrite && !o.FUA
	if quick || worker {
		return t.doLocal(o)
	}
	t.r.work.do(func() { t.run(t.doLocal(o), true) })
	return nil
}

func (t *Tenure) doLocal(o *op) []primary.Action {
	var err error
	if o.IsCopy() {
		err = readCopy(t.r.dev, o)
	} else {
		err = apply(t.r.dev, o)
	}
	return t.localReturned(func(now primary.Instant) { t.core.LocalDone(now, &o.Op, err) })
}

// localReturned tells the Core, or, when the tenure has ended meanwhile, whoever waits for the device to become quiet.
func (t *Tenure) localReturned(tell func(now primary.Instant)) []primary.Action {
	now := t.r.node.Now()
	t.mu.Lock()
	t.local--
	if t.ended {
		t.mu.Unlock()
		t.r.returned()
		return nil
	}
	defer t.mu.Unlock()
	tell(now)
	return t.takeLocked()
}

// apply carries a write, zeroing or flush out on a backing.
func apply(dev blockdev.Device, o *op) (err error) {
	switch o.Kind {
	case blockdev.OpWrite:
		if o.FUA {
			_, err = dev.WriteFUA(o.buf.Bytes(), o.Range.Off)
		} else {
			_, err = dev.WriteAt(o.buf.Bytes(), o.Range.Off)
		}
	case blockdev.OpZero:
		if err = dev.Zero(o.Range, o.Unmap); err == nil && o.FUA {
			err = dev.Flush()
		}
	case blockdev.OpFlush:
		err = dev.Flush()
	default:
		panic(fmt.Sprintf("replication: %v cannot be applied to a backing", o.Kind))
	}
	return err
}

// readCopy reads what a resync copies, and makes its checksum.
func readCopy(dev blockdev.Device, o *op) error {
	o.buf = blockdev.NewBuf(int(o.Range.Len))
	b := o.buf.Bytes()
	if _, err := dev.ReadAt(b, o.Range.Off); err != nil {
		return fmt.Errorf("read %v: %w", o.Range, err)
	}
	if o.zero = isZero(b); !o.zero {
		o.sum = crc32.Checksum(b, castagnoli)
	}
	return nil
}

var zeroes [64 << 10]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroes))
		if !bytes.Equal(b[:n], zeroes[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

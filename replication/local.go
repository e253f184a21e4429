package replication

import (
	"bytes"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
)

// startLocal puts an operation on the local backing, once its regions are marked: at once where the caller may wait for
// that, else in a worker.
func (t *Tenure) startLocal(o *op, by caller) {
	if !o.begins() {
		return
	}
	quick := by == client && t.r.cfg.Inline && !o.IsCopy() && o.Kind == blockdev.OpWrite && !o.FUA
	if quick || by == worker {
		t.doLocal(o, by)
		return
	}
	t.r.work.do(o)
}

// run is an operation's local part, in a worker.
func (o *op) run() {
	if o.Kind == blockdev.OpRead && !o.IsLook() {
		o.t.readLocal(o, worker)
		return
	}
	o.t.doLocal(o, worker)
}

func (t *Tenure) doLocal(o *op, by caller) {
	var err error
	began := o.localBegins()
	switch {
	case t.isGone(): // its outcome is unknown in any case: the device is left alone
	case o.unmarked != nil:
		err = o.unmarked
	case o.IsVoid():
	case o.IsCopy():
		err = readCopy(t.r.dev, o)
	case o.IsLook():
		o.look.mine <- seen{o.look.id, digestOf(t.r.dev, o.Range, nil, link.DigestDisk)}
	default:
		failpoint.HitOne(o.Kind == blockdev.OpFlush, failpoint.PrimaryFlush, failpoint.PrimaryWrite)
		err = apply(t.r.dev, o)
		failpoint.HitOne(o.Kind == blockdev.OpFlush, failpoint.PrimaryFlushed, failpoint.PrimaryWritten)
		t.r.meter.localDone(o, began)
		if o.reader != nil && err == nil {
			t.mended(o.Range)
		}
	}
	var now cluster.Instant
	if err != nil || o.IsCopy() {
		now = t.r.node.Now() // a write that succeeded decides nothing by the time, save in async
	}
	var failed error
	if !o.IsCopy() {
		failed = err
	}
	if !t.returnedLocked(failed) {
		return
	}
	if now == 0 && t.core.Timed() {
		now = t.r.node.Now()
	}
	t.core.LocalDone(now, &o.Op, err)
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, by)
}

func (t *Tenure) readLocal(o *op, by caller) {
	_, err := t.r.dev.ReadAt(o.req.Buf.Bytes(), o.Range.Off)
	var bad []blockdev.Range
	if mendable(err) {
		if by != worker {
			t.r.work.do(o) // it reads once more, and may wait for that
			return
		}
		bad, err = t.readPieces(o)
	}
	if !t.returnedLocked(nil) {
		return
	}
	if o.IsCounted() { // else the time is not asked for
		t.core.ReadHere(t.r.node.Now(), &o.Op)
	}
	if len(bad) > 0 {
		now := t.r.node.Now()
		t.core.ReadFailed(now, &o.Op, err, t.mends(o, bad))
	} else {
		t.core.ReadDone(&o.Op, err)
	}
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, by)
}

// returnedLocked counts an operation on the backing off and returns with the lock held; false, without it, when the
// tenure has ended meanwhile: then whoever waits for the device to become quiet is told. A write or flush that failed is
// noted before that, for no Core does it: the kernel names a failed flush once, and the next one would seem to mend it (R23).
func (t *Tenure) returnedLocked(failed error) bool {
	t.mu.Lock()
	t.local--
	if !t.ended {
		return true
	}
	t.mu.Unlock()
	if failed != nil {
		t.r.noteFailure(failed)
	}
	t.r.returned()
	return false
}

func (t *Tenure) isGone() bool {
	select {
	case <-t.gone:
		return true
	default:
		return false
	}
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

// readCopy reads what a resync copies, and makes its checksum. What was read for the comparison does not count any more.
func readCopy(dev blockdev.Device, o *op) error {
	if o.buf != nil {
		o.buf.Free()
	}
	o.buf = blockdev.NewBuf(int(o.Range.Len))
	if _, err := dev.ReadAt(o.buf.Bytes(), o.Range.Off); err != nil {
		return fmt.Errorf("read %v: %w", o.Range, err)
	}
	o.sumCopy()
	return nil
}

// sumCopy makes the checksum of what a copy holds; zeroes are sent without.
func (o *op) sumCopy() {
	b := o.buf.Bytes()
	if o.zero = isZero(b); !o.zero {
		o.sum = crc32.Checksum(b, castagnoli)
	}
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

var _ job = (*op)(nil)

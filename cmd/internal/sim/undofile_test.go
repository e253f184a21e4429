package sim

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
)

// undoPlace is where a node's undo area, or the rescue image of its resync, lies: a name in a directory, which a loss of power
// may take back to an older file or to none, until the directory was synced.
//
// An Area does what it does at one instant. That it takes its time is for settle to tell: what was flushed, made or removed is
// durable only from then on.
type undoPlace struct {
	w       *world
	file    *undoFile // what processes see; nil: none
	lasting *undoFile // what a loss of power leaves, unless it leaves file
	asked   bool      // the directory is to be synced
	image   bool      // what is made next is a rescue image, begun in epoch since
	since   cluster.Epoch
}

// undoFile is a file of which a loss of power takes what was not flushed, sector by sector.
type undoFile struct {
	cache, durable []byte
	room           int64 // how long it may get; 0: nothing limits it
	asked          bool  // a flush was asked for, and nothing was written since
	image          bool
	since          cluster.Epoch
}

const sector = 512

// Open implements undo.Place.
func (u *undoPlace) Open() (undo.Store, error) {
	if u.file == nil {
		return nil, undo.ErrNone
	}
	return u.file, nil
}

// Create implements undo.Place.
func (u *undoPlace) Create(head []byte) (undo.Store, error) {
	w, f := u.w, &undoFile{image: u.image, since: u.since}
	if !f.image && w.chance(w.faults.noRoom) {
		if w.chance(0.2) {
			return nil, undo.ErrNoRoom
		}
		f.room = int64(len(head) + w.rng.IntN(4)*(sector+blockdev.BlockSize))
	}
	f.cache = bytes.Clone(head)
	f.durable = bytes.Clone(head)
	u.file, u.asked = f, true
	return f, nil
}

// Remove implements undo.Place.
func (u *undoPlace) Remove() error {
	u.file, u.asked = nil, true
	return nil
}

// settle: what was asked to be durable is.
func (u *undoPlace) settle() {
	if u.asked {
		u.lasting = u.file
	}
	if f := u.file; f != nil && f.asked {
		f.durable = append(f.durable[:0], f.cache...)
	}
	u.forget()
}

// forget: who asked did not live to ask.
func (u *undoPlace) forget() {
	if u.asked = false; u.file != nil {
		u.file.asked = false
	}
}

// powerLoss leaves one file or the other, and of that any mixture of what was flushed and what was not.
func (u *undoPlace) powerLoss() {
	if u.file != u.lasting && u.w.chance(0.5) {
		u.file = u.lasting
	}
	u.lasting, u.asked = u.file, false
	if u.file != nil {
		u.file.powerLoss(u.w)
	}
}

func (f *undoFile) powerLoss(w *world) {
	if bytes.Equal(f.cache, f.durable) {
		return
	}
	size := len(f.durable)
	if w.chance(0.5) {
		size = len(f.cache)
	}
	left := make([]byte, size) // a sector that was never written to reads as zeroes
	for at := 0; at < size; at += sector {
		from := f.durable
		if w.chance(0.5) {
			from = f.cache
		}
		if at < len(from) {
			copy(left[at:min(at+sector, size)], from[at:])
		}
	}
	f.cache, f.durable, f.asked = left, bytes.Clone(left), false
}

func (f *undoFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.cache)) {
		return 0, io.EOF
	}
	n := copy(p, f.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *undoFile) WriteAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	if f.room > 0 && end > f.room {
		return 0, fmt.Errorf("%w: the model gave it %d bytes", undo.ErrNoRoom, f.room)
	}
	if end > int64(len(f.cache)) {
		f.cache = append(f.cache, make([]byte, end-int64(len(f.cache)))...)
	}
	f.asked = false
	return copy(f.cache[off:], p), nil
}

func (f *undoFile) Size() (int64, error) { return int64(len(f.cache)), nil }

func (f *undoFile) Truncate(size int64) error {
	f.cache, f.asked = f.cache[:size], false
	return nil
}

func (f *undoFile) Flush() error {
	f.asked = true
	return nil
}

func (f *undoFile) Close() error { return nil }

// undoSource is a disk as an Area reads it.
type undoSource struct{ d *disk }

func (s undoSource) ReadAt(p []byte, off int64) (int, error) {
	for at := 0; at < len(p); at += blockdev.BlockSize {
		s.d.cache[(off+int64(at))/blockdev.BlockSize].encode(p[at : at+blockdev.BlockSize])
	}
	return len(p), nil
}

func (s undoSource) Extents(at blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	fn(at, false)
	return nil
}

// fileOp has what was just done to the area take its time, and be durable then; then is called in p, if it lives.
func (r *replica) fileOp(then func()) {
	boot := r.n.boot
	r.n.storing++
	r.w.after(r.w.between(50*time.Microsecond, 3*time.Millisecond), func() {
		if r.n.boot != boot {
			return
		}
		r.n.storing--
		if u := &r.n.undo; r.p.dead && r.w.chance(0.5) {
			u.forget()
		} else {
			u.settle()
		}
		r.p.after(r.w.between(0, time.Millisecond), then)
	})
}

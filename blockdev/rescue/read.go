package rescue

import (
	"errors"
	"fmt"
	"io"
	"math"

	"hacluster/blockdev"
	"hacluster/blockdev/undo"
)

// Cursor is how far reading an image has come. The zero Cursor is its beginning.
type Cursor struct {
	Image bool  // the replica was read to its end, now the image is
	At    int64 // byte of the volume, or of the image's file
}

// Part is a piece of the volume. Data nil: zeroes.
type Part struct {
	Off, Len int64
	Data     []byte
}

// Piece is what one Read brought. The parts are to be written in order: later ones replace earlier ones.
type Piece struct {
	Parts []Part
	Next  Cursor
	End   bool // nothing follows
}

// How much a Piece has at most.
const (
	maxPiece = 2 << 20 // bytes of data
	maxParts = 1024
)

// Read reads the volume as it was when the resync of the image began, piece by piece. First comes what the replica holds now,
// then, over it, all that the image holds: what is written to the replica meanwhile is in the image before, and is read after.
// A volume that reads as zeroes is assumed to begin with. ErrNotWhole: the image is none any more, or was not; with partial
// what the resync overwrote is right all the same, and the rest is as the replica has it now.
func (s *Shelf) Read(id string, c Cursor, partial bool) (p Piece, err error) {
	if c.Image {
		p, err = s.readImage(id, c.At)
	} else {
		p, err = s.readReplica(id, c.At)
	}
	if err != nil {
		return Piece{}, fmt.Errorf("read rescue image %s: %w", id, err)
	}
	if i, err := s.closed(id); err != nil {
		return Piece{}, err
	} else if !i.Whole && !partial { // asked after reading: until then it was
		has := "what the resync overwrote is in it"
		if !i.Complete {
			has = fmt.Sprintf("of what the resync overwrote it has %d bytes, as far as they can be read", i.Bytes)
		}
		return Piece{}, fmt.Errorf("%w: %s: %s; %s, the rest may have been written since", ErrNotWhole, id, i.Why, has)
	}
	return p, nil
}

func (s *Shelf) closed(id string) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch i := s.findLocked(id); {
	case i == nil || i.removed:
		return Info{}, fmt.Errorf("%w: %s", ErrNone, id)
	case !i.closed:
		return Info{}, fmt.Errorf("%w: %s", ErrLive, id)
	case i.foreign:
		return Info{}, fmt.Errorf("%w: %s", ErrForeign, id)
	default:
		return s.infoLocked(i), nil
	}
}

// readReplica reads data of the replica, and passes over what is known to be a hole.
func (s *Shelf) readReplica(id string, at int64) (p Piece, err error) {
	if _, err := s.closed(id); err != nil {
		return p, err
	}
	if at < 0 || at > s.cfg.Size {
		return p, fmt.Errorf("byte %d of %d", at, s.cfg.Size)
	}
	var data []blockdev.Range
	left, next := int64(maxPiece), s.cfg.Size
	err = s.src.Extents(blockdev.Range{Off: at, Len: s.cfg.Size - at}, func(e blockdev.Range, hole bool) bool {
		if hole {
			return true
		}
		from := max(e.Off/blockdev.BlockSize*blockdev.BlockSize, at)
		to := min((e.End()+blockdev.BlockSize-1)/blockdev.BlockSize*blockdev.BlockSize, s.cfg.Size)
		if n := to - from; n > left {
			to = from + left
		}
		data, left = append(data, blockdev.Range{Off: from, Len: to - from}), left-(to-from)
		if left <= 0 || len(data) == maxParts {
			next = to
			return false
		}
		return true
	})
	if err != nil {
		return p, fmt.Errorf("ask which of the replica holds data: %w", err)
	}
	for _, r := range data {
		if r.Len <= 0 {
			continue
		}
		b := blockdev.NewBuf(int(r.Len))
		if _, err := s.src.ReadAt(b.Bytes(), r.Off); err != nil {
			b.Free()
			return p, fmt.Errorf("read %v of the replica: %w", r, err)
		}
		p.Parts = append(p.Parts, Part{r.Off, r.Len, append([]byte(nil), b.Bytes()...)})
		b.Free()
	}
	p.Next = Cursor{At: next}
	if next == s.cfg.Size {
		p.Next = Cursor{Image: true, At: undo.Start}
	}
	return p, nil
}

// readImage reads what the image holds. Of one that is no whole volume any more, what came after the end of the resync is
// left out: there may be some that is neither old nor new.
func (s *Shelf) readImage(id string, at int64) (p Piece, err error) {
	info, err := s.closed(id)
	if err != nil {
		return p, err
	}
	s.mu.Lock()
	i := s.findLocked(id)
	end := i.label.end
	damaged := end == 0
	s.mu.Unlock()
	switch {
	case damaged:
		end = math.MaxInt64
	case info.Whole:
		end = max(end, info.File)
	}
	r, err := undo.NewReader(s.cfg.Room.Image(id), at, end)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for left := int64(maxPiece); left > 0 && len(p.Parts) < maxParts; {
		at, content, err := r.Next()
		if errors.Is(err, io.EOF) || damaged && errors.Is(err, undo.ErrCorrupt) {
			p.End = true
			break
		}
		if err != nil {
			return p, err
		}
		part := Part{Off: at.Off, Len: at.Len}
		if content != nil {
			part.Data = append([]byte(nil), content...)
			left -= at.Len
		}
		p.Parts = append(p.Parts, part)
	}
	p.Next = Cursor{Image: true, At: r.At()}
	return p, nil
}

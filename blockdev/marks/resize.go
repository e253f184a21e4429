package marks

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ResizePath makes the map at path one of a volume of size bytes, b being the binding with the size that the volume had.
// Nobody may have it open. What was marked stays so, in regions that may be larger or smaller, unless all of it lies behind the
// new end; numbers, slots and the incarnation stay as they are. beyond: what lies behind the old end may differ from every peer,
// and is marked (R14). One that has the size already is left alone, so that it may be done again after a crash.
//
//	1 all of it goes to a file beside it, which is synced   a crash before 2 leaves the map of the old size
//	2 it is renamed into place, the directory is synced     a crash leaves the one or the other, whole
func ResizePath(path string, b Binding, size int64, beyond bool) error {
	if err := resizePath(path, b, size, beyond); err != nil {
		return fmt.Errorf("resize map of marks %s: %w", path, err)
	}
	return nil
}

func resizePath(path string, b Binding, size int64, beyond bool) error {
	s, err := OpenPath(path)
	if err != nil {
		return err
	}
	defer s.Close()
	resized := b
	resized.Size = size
	if err := resized.validate(); err != nil {
		return err
	}
	if _, err := load(s, &resized); err == nil {
		return nil
	}
	f, err := load(s, &b)
	if err != nil {
		return err
	}
	return replacePath(path, size, func(to Store) error { return f.resizeInto(to, size, beyond) })
}

// resizeInto writes the map of a volume of another size over whatever to holds.
func (f *File) resizeInto(to Store, size int64, beyond bool) error {
	var random [8]byte
	rand.Read(random[:]) // never fails
	h := f.head
	h.tag, h.size, h.region = binary.LittleEndian.Uint64(random[:]), size, regionSize(size)
	h.generation++
	err := writeCells(to, &h, func(region int64) (s Slots) {
		off := region * h.region
		for r := off / f.region; r < f.Regions() && r*f.region < off+h.region; r++ {
			s |= f.Marked(r)
		}
		if beyond && off+h.region > f.size {
			s |= h.used()
		}
		return s
	})
	if err != nil {
		return fmt.Errorf("write the cells: %w", err)
	}
	return writeHeaders(to, &h, 0)
}

// replacePath puts a new file in the place of the one at path, whole or not at all.
func replacePath(path string, volume int64, write func(Store) error) error {
	beside := path + ".new"
	f, err := os.OpenFile(beside, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = write(&osFile{f, fileSize(volume)})
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

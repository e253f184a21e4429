package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// DataFrom is the first stretch of a file at or after off that is not a hole; both ends are size when there is none.
func DataFrom(f *os.File, off, size int64) (from, to int64, err error) {
	from, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err == nil {
		to, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find the data of %s from %d on: %w", f.Name(), off, err)
	}
	return min(from, size), min(to, size), nil
}

// Differing compares two files of one size and returns the numbers of the blocks that differ. Where both have holes
// nothing is read.
func Differing(a, b string) (blocks []int64, err error) {
	var f [2]*os.File
	var size [2]int64
	for i, name := range []string{a, b} {
		if f[i], err = os.Open(name); err != nil {
			return nil, err
		}
		defer f[i].Close()
		if size[i], err = f[i].Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	if size[0] != size[1] {
		return nil, fmt.Errorf("%s has %d bytes, %s %d", a, size[0], b, size[1])
	}
	var buf [2][]byte
	for i := range buf {
		buf[i] = make([]byte, longestRead*StampSize)
	}
	for off := int64(0); ; {
		from := size[0]
		for i := range f {
			start, _, err := DataFrom(f[i], off, size[0])
			if err != nil {
				return nil, err
			}
			from = min(from, start)
		}
		if from == size[0] {
			return blocks, nil
		}
		off = from / StampSize * StampSize
		n := min(longestRead*StampSize, size[0]-off)
		for i := range f {
			if _, err := f[i].ReadAt(buf[i][:n], off); err != nil {
				return nil, err
			}
		}
		for at := int64(0); at < n; at += StampSize {
			end := min(at+StampSize, n)
			if !bytes.Equal(buf[0][at:end], buf[1][at:end]) {
				blocks = append(blocks, (off+at)/StampSize)
			}
		}
		off += n
	}
}

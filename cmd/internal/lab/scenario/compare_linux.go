package scenario

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const compareAtOnce = 1 << 20

// compare reads two files past the page cache and returns the first places at which they differ, limit at most.
func compare(a, b string, limit int) (places []int64, err error) {
	var files [2]*os.File
	var size [2]int64
	for i, name := range []string{a, b} {
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			return nil, fmt.Errorf("open a replica past the page cache: %w", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		files[i], size[i] = f, info.Size()
	}
	if size[0] != size[1] {
		return nil, fmt.Errorf("%s has %d bytes, %s %d", a, size[0], b, size[1])
	}
	buf := [2][]byte{aligned(compareAtOnce), aligned(compareAtOnce)}
	for off := int64(0); off < size[0]; off += compareAtOnce {
		n := min(compareAtOnce, size[0]-off)
		for i := range files {
			if _, err := files[i].ReadAt(buf[i][:n], off); err != nil {
				return nil, fmt.Errorf("read a replica: %w", err)
			}
		}
		for at := int64(0); at < n && len(places) < limit; at += 4096 {
			if end := min(at+4096, n); !bytes.Equal(buf[0][at:end], buf[1][at:end]) {
				places = append(places, off+at)
			}
		}
	}
	return places, nil
}

// readBlocks reads blocks of a file past the page cache.
func readBlocks(path string, blocks []int64, seen func(block int64, p []byte)) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return fmt.Errorf("open a replica past the page cache: %w", err)
	}
	defer f.Close()
	p := aligned(4096)
	for _, b := range blocks {
		if _, err := f.ReadAt(p, b*4096); err != nil {
			return fmt.Errorf("read a replica: %w", err)
		}
		seen(b, p)
	}
	return nil
}

// aligned is memory that begins at a multiple of 4096, as O_DIRECT demands.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := (4096 - int(uintptr(unsafe.Pointer(&b[0]))%4096)) % 4096
	return b[skip : skip+n]
}

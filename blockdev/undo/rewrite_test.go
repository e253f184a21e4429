package undo

import (
	"errors"
	"io"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
)

// pageCache is a file as Linux has it: a flush that fails leaves its pages clean, and nothing writes them any more.
type pageCache struct {
	cache, disk []byte
	dirty       map[int64]bool
	failFlush   bool
	readOnly    bool // as ext4 after errors=remount-ro
}

func (c *pageCache) Open() (Store, error) {
	if c.cache == nil {
		return nil, ErrNone
	}
	return c, nil
}
func (c *pageCache) Create(p []byte) (Store, error) {
	c.cache, c.disk, c.dirty = append([]byte(nil), p...), append([]byte(nil), p...), map[int64]bool{}
	return c, nil
}
func (c *pageCache) Remove() error { c.cache, c.disk = nil, nil; return nil }
func (c *pageCache) Close() error  { return nil }
func (c *pageCache) Size() (int64, error) {
	return int64(len(c.cache)), nil
}
func (c *pageCache) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, c.cache[min(off, int64(len(c.cache))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
func (c *pageCache) WriteAt(p []byte, off int64) (int, error) {
	if grow := off + int64(len(p)) - int64(len(c.cache)); grow > 0 {
		c.cache = append(c.cache, make([]byte, grow)...)
	}
	copy(c.cache[off:], p)
	for b := off / 512; b <= (off+int64(len(p))-1)/512; b++ {
		c.dirty[b] = true
	}
	return len(p), nil
}
func (c *pageCache) Truncate(n int64) error {
	if c.readOnly {
		return errors.New("read-only file system")
	}
	c.cache = c.cache[:n]
	if int64(len(c.disk)) > n {
		c.disk = c.disk[:n]
	}
	return nil
}
func (c *pageCache) Flush() error {
	fail := c.failFlush
	if len(c.disk) < len(c.cache) {
		c.disk = append(c.disk, make([]byte, len(c.cache)-len(c.disk))...)
	}
	for b := range c.dirty {
		if !fail {
			copy(c.disk[b*512:min((b+1)*512, int64(len(c.disk)))], c.cache[b*512:min((b+1)*512, int64(len(c.cache)))])
		}
	}
	clear(c.dirty)
	if fail {
		c.failFlush, c.readOnly = false, true
		return errors.New("input/output error")
	}
	return nil
}

// R18, R23: what a flush that failed has left in the page cache is not taken for durable by the next process, also when the
// file could not be cut off there.
func TestGroupWhoseFlushFailedIsWrittenAnewByTheNextProcess(t *testing.T) {
	const size = 16 * blockdev.BlockSize
	mem := memdev.New(memdev.Config{Size: size})
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i%251) + 1
	}
	if _, err := mem.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	place := &pageCache{}
	cfg := Config{Binding: Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "a", Size: size, Attachment: "1", Epoch: 9}, Place: place}
	a, err := Open(cfg, mem)
	if err == nil {
		err = a.Begin(Point{}, 5, mem)
	}
	if err != nil {
		t.Fatal(err)
	}
	place.failFlush = true // and ext4 goes read-only, so that the group cannot be cut off either
	w := make(toldBy, 1)
	at := blockdev.Range{Off: 2 * blockdev.BlockSize, Len: blockdev.BlockSize}
	ready, err := a.Log(at, w)
	if err == nil {
		err = <-w
	}
	if ready || err == nil {
		t.Fatal("it counts as logged although its flush failed")
	}
	// The process dies, or is restarted by whoever made the file system writable again: no power cut.
	place.readOnly = false
	b, err := Open(cfg, mem)
	if err != nil {
		t.Fatal(err)
	}
	ready, err = b.Log(at, w)
	if ready && err == nil { // the block is overwritten now
		if _, err := mem.WriteAt(make([]byte, blockdev.BlockSize), at.Off); err != nil {
			t.Fatal(err)
		}
		// power cut
		cut := &pageCache{cache: append([]byte(nil), place.disk...), disk: place.disk, dirty: map[int64]bool{}}
		cfg.Place = cut
		c, err := Open(cfg, mem)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := c.Each(func(blockdev.Range, []byte) error { n++; return nil }); err != nil {
			t.Error(err)
		}
		if n == 0 {
			t.Error("the block was overwritten, and its old content is nowhere: not in the area, not on the device")
		}
	}
}

type toldBy chan error

func (c toldBy) Logged(err error) { c <- err }

// flaky is a place that cannot be opened for a moment.
type flaky struct {
	*pageCache
	err error
}

func (f *flaky) Open() (Store, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.pageCache.Open()
}

func TestAreaThatCannotBeReopenedForAMomentIsTriedAgain(t *testing.T) {
	const size = 16 * blockdev.BlockSize
	mem := memdev.New(memdev.Config{Size: size})
	place := &flaky{pageCache: &pageCache{}}
	cfg := Config{Binding: Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "a", Size: size, Attachment: "1", Epoch: 9}, Place: place}
	a, err := Open(cfg, mem)
	if err == nil {
		err = a.Begin(Point{}, 5, mem)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.GiveUp(errors.New("no room"))
	place.err = errors.New("too many open files")
	if err := a.Reopen(mem); err == nil || !a.Live() || a.Failed() == nil {
		t.Fatalf("%v, live %t, failed %v: the way back is lost", err, a.Live(), a.Failed())
	}
	place.err = nil
	if err := a.Reopen(mem); err != nil || a.Failed() != nil {
		t.Fatalf("%v, %v", err, a.Failed())
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

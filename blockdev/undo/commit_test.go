package undo

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
)

// overtaken has a group made while the flush of the one before it hangs, and returns who is told of either.
func overtaken(t *testing.T, end error) (p *memPlace, a *Area, first, second told) {
	t.Helper()
	p = &memPlace{}
	a = begun(t, p, filled(t, rng(30)))
	h := p.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true, Err: end})
	first, second = make(told, 1), make(told, 9)
	if _, err := a.Log(block(0, 1), first); err != nil {
		t.Fatal(err)
	}
	for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
		<-changed
	}
	read := make(chan struct{})
	a.now().src = tellRead{a.now().src, read}
	for i := range int64(9) { // while it is being made, again and again there is time to write it
		if _, err := a.Log(block(3*i+3, 1), second); err != nil {
			t.Fatal(err)
		}
		<-read
	}
	rest := make([]byte, recordSize)
	if _, err := p.dev.ReadAt(rest, headerSize+recordSize+blockdev.BlockSize); err != nil || !zero(rest) {
		t.Fatalf("something was written behind a group that is not durable, %v", err)
	}
	if len(second) > 0 {
		t.Fatal("told before the group ahead is durable")
	}
	h.Release()
	return p, a, first, second
}

type tellRead struct {
	Source
	read chan<- struct{}
}

func (s tellRead) ReadAt(p []byte, off int64) (int, error) {
	defer func() { s.read <- struct{}{} }()
	return s.Source.ReadAt(p, off)
}

func TestGroupIsMadeButNotWrittenBeforeTheOneAheadIsDurable(t *testing.T) { // R18
	_, a, first, second := overtaken(t, nil)
	must(t, <-first)
	for range cap(second) {
		must(t, <-second)
	}
	for _, at := range []blockdev.Range{block(0, 1), block(27, 1)} {
		if ready, err := a.Log(at, second); !ready || err != nil {
			t.Fatalf("%v: ready %t, %v", at, ready, err)
		}
	}
}

func TestGroupBehindOneWhoseFlushFailedIsNotWritten(t *testing.T) { // R18, R23
	broken := errors.New("flush is broken")
	p, _, first, second := overtaken(t, broken)
	for _, c := range []told{first, second} {
		if err := <-c; !errors.Is(err, broken) {
			t.Fatalf("told %v", err)
		}
	}
	rest := make([]byte, 4*blockdev.BlockSize)
	if _, err := p.dev.ReadAt(rest, headerSize); err != nil || !zero(rest) {
		t.Fatalf("something of either group is left, %v", err)
	}
}

// What is more than a group goes into several, past the page cache where there is a way.
func TestRangeOfSeveralGroupsLeadsBack(t *testing.T) { // R18
	size := int64(3*groupBytes + 5*blockdev.BlockSize)
	d := memdev.New(memdev.Config{Size: size})
	old := bytes.Repeat([]byte("the old content "), int(size/16))
	_, err := d.WriteAt(old, 0)
	must(t, err)
	must(t, d.Zero(block(1500, 3), true))
	want := content(t, d)
	cfg := Config{Binding: testBinding(), Place: &Dir{Path: filepath.Join(t.TempDir(), "undo")}}
	cfg.Size = size
	a, err := Open(cfg, d)
	must(t, err)
	must(t, a.Begin(testPoint, 9, d))
	must(t, logged(a, block(7, 1)))
	c := make(told, 2)
	for _, at := range []blockdev.Range{{Len: size - blockdev.BlockSize}, {Off: size / 2 / blockdev.BlockSize * blockdev.BlockSize, Len: size / 2}} {
		if _, err := a.Log(at, c); err != nil {
			t.Fatal(err)
		}
	}
	must(t, <-c)
	must(t, <-c)
	if groups := a.now().last.group; groups < 4 {
		t.Errorf("all of it is in %d groups", groups)
	}
	must(t, a.Close())
	must(t, d.Zero(blockdev.Range{Len: size}, true))
	b, err := Open(cfg, d)
	must(t, err)
	rollBack(t, b, d)
	same(t, d, want)
	must(t, b.Close())
}

func TestDiskWithLargerSectorsIsWrittenThroughThePageCache(t *testing.T) {
	s, err := (&Dir{Path: filepath.Join(t.TempDir(), "undo")}).Create(make([]byte, headerSize))
	must(t, err)
	defer s.Close()
	if s.(*osFile).direct == nil {
		t.Skip("the filesystem of temporary files has no O_DIRECT")
	}
	want := bytes.Repeat([]byte("x"), directBytes+1) // no disk has sectors of one byte
	_, err = s.WriteAt(want, headerSize)
	must(t, err)
	got := make([]byte, len(want))
	must(t, read(s, got, headerSize))
	if size, _ := s.Size(); !bytes.Equal(got, want) || size != int64(headerSize+len(want)) {
		t.Errorf("not what was written, size %d", size)
	}
}

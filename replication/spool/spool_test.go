package spool

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The file grows to what is in it at most, is used again from the beginning, and shrinks from the end.
func TestSlotsAreUsedAgain(t *testing.T) {
	const half = slotSize / 2
	var s slots
	put := func(n, wantOff int64, wantGrows bool) int64 {
		t.Helper()
		off, slot, grows := s.next(n)
		if off != wantOff || grows != wantGrows {
			t.Fatalf("%d bytes go to %d (grows: %t), want %d (%t)", n, off, grows, wantOff, wantGrows)
		}
		s.take(slot, off, n)
		return off
	}
	a := put(half, 0, true)
	b := put(half, half, false)
	c := put(half+1, slotSize, true)
	d := put(half, 2*slotSize, true) // what does not fit begins the next
	s.free(a, half)
	e := put(half, 2*slotSize+half, false) // the first is not empty yet
	s.free(b, half)
	f := put(1, 0, false)
	if got := s.trim(); got != 3*slotSize {
		t.Errorf("trimmed to %d", got)
	}
	s.free(d, half)
	s.free(e, half)
	if got := s.trim(); got != 2*slotSize {
		t.Errorf("trimmed to %d", got)
	}
	s.free(c, half+1)
	s.free(f, 1)
	if got := s.trim(); got != 0 || s.used != 0 {
		t.Errorf("empty, trimmed to %d, %d in use", got, s.used)
	}
	put(slotSize, 0, true)
}

func open(t *testing.T, l Limits) *File {
	t.Helper()
	if l.Bytes == 0 {
		l.Bytes = 1 << 40
	}
	f, err := Create(t.TempDir(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// What was put is read back, in any order of freeing, and nothing is left in the folder.
func TestFileGivesBackWhatWasPut(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	f := open(t, Limits{})
	type item struct {
		at   Place
		data []byte
	}
	var all []item
	for range 200 {
		var pieces [][]byte
		for range 1 + rng.IntN(40) {
			p := make([]byte, (1+rng.IntN(64))*4096)
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			pieces = append(pieces, p)
		}
		for len(pieces) > 0 {
			places, err := f.Put(pieces, nil)
			if err != nil || len(places) == 0 {
				t.Fatal(err)
			}
			for i, at := range places {
				all = append(all, item{at, pieces[i]})
			}
			pieces = pieces[len(places):]
		}
		for len(all) > 300 {
			i := rng.IntN(len(all))
			got := make([]byte, len(all[i].data))
			if err := f.Read([][]byte{got}, all[i].at); err != nil || !bytes.Equal(got, all[i].data) {
				t.Fatalf("%+v: %v, or other data", all[i].at, err)
			}
			f.Free(all[i].at)
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
		}
		if err := f.Trim(); err != nil {
			t.Fatal(err)
		}
	}
	for _, it := range all {
		f.Free(it.at)
	}
	if err := f.Trim(); err != nil || f.Used() != 0 {
		t.Fatalf("%v, %d in use", err, f.Used())
	}
	if st, err := f.f.Stat(); err != nil || st.Size() != 0 {
		t.Errorf("empty, and %d bytes long, %v", st.Size(), err)
	}
	if names, err := os.ReadDir(f.dir); err != nil || len(names) != 0 {
		t.Errorf("in the folder: %v, %v", names, err)
	}
}

// Several that lie behind each other are read in one call.
func TestFileReadsTogetherWhatLiesTogether(t *testing.T) {
	f := open(t, Limits{})
	places, err := f.Put([][]byte{[]byte("one"), []byte("and"), []byte("three")}, nil)
	if err != nil || len(places) != 3 || !places[1].Follows(places[0]) || !places[2].Follows(places[1]) || places[2].Follows(places[0]) {
		t.Fatalf("%+v, %v", places, err)
	}
	got := [][]byte{make([]byte, 3), make([]byte, 3), make([]byte, 5)}
	if err := f.Read(got, places[0]); err != nil || string(got[0])+string(got[1])+string(got[2]) != "oneandthree" {
		t.Errorf("%q, %v", got, err)
	}
	if err := f.Read([][]byte{make([]byte, 100)}, places[2]); err == nil {
		t.Error("read beyond the end")
	}
}

// R28: it holds no more than it may, and leaves its file system what others need.
func TestFileIsFull(t *testing.T) {
	f := open(t, Limits{Bytes: 10})
	places, err := f.Put([][]byte{make([]byte, 8)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Put([][]byte{make([]byte, 3)}, nil); !errors.Is(err, ErrFull) {
		t.Errorf("beyond its limit: %v", err)
	}
	f.Free(places[0])
	if _, err := f.Put([][]byte{make([]byte, 3)}, nil); err != nil {
		t.Errorf("with room again: %v", err)
	}
	g := open(t, Limits{Reserve: func(total int64) int64 { return total }})
	if _, err := g.Put([][]byte{make([]byte, 3)}, nil); !errors.Is(err, ErrFull) {
		t.Errorf("without room in the file system: %v", err)
	}
}

func TestFileTellsOfADeviceThatFails(t *testing.T) {
	f := open(t, Limits{})
	fd, err := unix.Open("/dev/full", unix.O_RDWR, 0)
	if err != nil {
		t.Skip("there is no /dev/full here")
	}
	_ = f.f.Close()
	f.f = os.NewFile(uintptr(fd), "/dev/full")
	f.slots.live = []int64{1} // it does not grow
	if _, err := f.Put([][]byte{make([]byte, 3)}, nil); !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.ESPIPE) {
		t.Errorf("%v", err)
	}
	if f.slots.used != 0 {
		t.Error("it counts what was not written")
	}
}

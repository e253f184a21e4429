package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// inMemory is a volume in memory that notes how often it was written.
type inMemory struct {
	mu      sync.Mutex
	data    []byte
	writes  int
	enough  int
	cancel  func()
	dropped int // this write is acknowledged and not done
}

func (d *inMemory) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writes++; d.writes == d.enough {
		d.cancel()
	}
	if d.writes != d.dropped {
		copy(d.data[off:], p)
	}
	return len(p), nil
}

func (d *inMemory) WriteFUA(p []byte, off int64) (int, error)     { return d.WriteAt(p, off) }
func (d *inMemory) Flush() error                                  { return nil }
func (d *inMemory) Server() string                                { return "here" }
func (d *inMemory) ReadAt(p []byte, off int64) (n int, err error) { return copy(p, d.data[off:]), nil }

func block(n int64, seq uint64) []byte {
	p := make([]byte, StampSize)
	Stamp(p, n, seq)
	return p
}

func TestRecordJudgesEachBlock(t *testing.T) {
	torn := block(7, 30)
	copy(torn[2048:], block(7, 20)[2048:])
	for name, c := range map[string]struct {
		holds []byte
		want  string // empty: as it must be
	}{
		"the acknowledged write":        {block(7, 20), ""},
		"one sent later":                {block(7, 30), ""},
		"an older write":                {block(7, 10), "the older write 10"},
		"nothing":                       {make([]byte, StampSize), "zeroes"},
		"parts of two writes":           {torn, "a part of write 30"},
		"the block of another place":    {block(8, 20), "belongs into block 8"},
		"a write that was sent nowhere": {block(7, 31), "never sent there"},
		"a stranger's data":             {bytes.Repeat([]byte{1}, StampSize), "no write put there"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "record")
			rec, err := NewRecorder(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, seq := range []uint64{10, 20, 30} {
				if err := rec.Begin(seq, 7, 1); err != nil {
					t.Fatal(err)
				}
				if seq == 30 {
					break
				}
				if err := rec.Acked(seq, "here"); err != nil {
					t.Fatal(err)
				}
			}
			if err := rec.Close(); err != nil {
				t.Fatal(err)
			}
			read, err := LoadRecord(path)
			if err != nil {
				t.Fatal(err)
			}
			dev := &inMemory{data: append(make([]byte, 7*StampSize), c.holds...)}
			for _, r := range []*Record{&rec.Record, read} {
				lost, err := r.Check(dev)
				if err != nil {
					t.Fatal(err)
				}
				if c.want == "" && len(lost) > 0 || c.want != "" && (len(lost) != 1 || !strings.Contains(lost[0].String(), c.want)) {
					t.Fatalf("found %v, want %q", lost, c.want)
				}
			}
		})
	}
}

func TestLoadFindsTheOneWriteThatWasAcknowledgedAndNotDone(t *testing.T) {
	for _, dropped := range []int{0, 2000} { // the last one: nothing can hide it
		ctx, cancel := context.WithCancel(t.Context())
		d := &inMemory{data: make([]byte, 1<<20), enough: 2000, dropped: dropped, cancel: cancel}
		rec, err := NewRecorder("")
		if err != nil {
			t.Fatal(err)
		}
		l := &Load{Dev: d, Record: rec, First: 16, Blocks: 240, Workers: 1}
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		lost, err := rec.Check(d)
		if err != nil {
			t.Fatal(err)
		}
		if (len(lost) > 0) != (dropped > 0) {
			t.Fatalf("dropped write %d, found lost: %v", dropped, lost)
		}
		for _, b := range d.data[:16*StampSize] {
			if b != 0 {
				t.Fatal("the load left its region")
			}
		}
	}
}

func TestRecordOfAKilledWriterIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(path, []byte("w 1 5 2\ns 100 a\na 1\nw 2 5 1\ns 200 b\na 2\nw 3 9"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := LoadRecord(path)
	if err != nil || r.Writes != 2 || r.Blocks != 3 || r.Size() != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	if s, ok := r.SwitchAfter(101); !ok || s.Server != "b" || s.At != 200 {
		t.Fatalf("%+v %v", s, ok)
	}
	if _, ok := r.SwitchAfter(201); ok {
		t.Fatal("a switch that never was")
	}
	if err := os.WriteFile(path, []byte("w 1 5 2\na 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRecord(path); err == nil {
		t.Fatal("an answer to nothing was taken")
	}
}

func TestDifferingSeesThroughHoles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	const size = 64 << 20
	for _, name := range []string{a, b} {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(block(1, 1), 5000*StampSize); err != nil { // the same in both
			t.Fatal(err)
		}
		if name == a {
			_, err = f.WriteAt(make([]byte, 100*StampSize), 300*StampSize) // written zeroes are like a hole
		} else {
			_, err = f.WriteAt([]byte{1}, size-1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := Differing(a, b)
	if err != nil || len(got) != 1 || got[0] != size/StampSize-1 {
		t.Fatalf("%v %v", got, err)
	}
	if err := os.Truncate(b, size-1); err != nil {
		t.Fatal(err)
	}
	if _, err := Differing(a, b); err == nil {
		t.Fatal("different sizes were compared")
	}
}

package rescue

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/undo"
)

// Whatever is written to a member later, the image is the whole volume as it was.
func TestImageIsTheWholeVolumeWhileWritesGoOn(t *testing.T) { // R19
	g, want, id := rescued(t, 1, block(3, 4), block(20, 1), block(40, 9))
	g.same(id, want)
	for range 100 {
		at := block(g.rng.Int64N(60), 1+g.rng.Int64N(4))
		if g.rng.IntN(2) == 0 {
			at.Off, at.Len = at.Off+512, at.Len-1024
		}
		g.write(at)
		if g.rng.IntN(10) == 0 {
			g.same(id, want)
		}
	}
	got, err := g.exported(id, false, func() { g.write(block(g.rng.Int64N(60), 1+g.rng.Int64N(4))) })
	must(t, err)
	differ(t, got, want)
	i := g.shelf.List()[0]
	if !i.Whole || i.Bytes != 14*blockdev.BlockSize || i.Epoch != 5 || i.Point != testPoint || i.ID != "alpha-e5-1" || !i.Closed.Equal(time.UnixMilli(1764000009000)) || i.File == 0 {
		t.Errorf("it is told of as %+v", i)
	}
	if len(g.ended) > 0 {
		t.Errorf("ended: %v", g.ended)
	}
}

func TestWritersBesideEachOtherAndAnExport(t *testing.T) { // R19
	g, want, id := rescued(t, 2, block(0, 2))
	var goes sync.WaitGroup
	for w := range int64(4) {
		goes.Go(func() {
			p := bytes.Repeat([]byte{byte(w + 1)}, 512)
			for i := range int64(400) {
				at := blockdev.Range{Off: (i%64)*blockdev.BlockSize + w*512, Len: 512} // all in the same blocks
				g.shelf.Keep(at)
				if _, err := g.mem.WriteAt(p, at.Off); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		g.same(id, want)
	}
	goes.Wait()
	g.same(id, want)
}

func TestPromiseOutlivesARestartInOrder(t *testing.T) {
	g, want, id := rescued(t, 3, block(3, 4))
	for range 3 {
		g.write(block(g.rng.Int64N(60), 3))
		must(t, g.shelf.Stop())
		g.open(false)
		g.same(id, want)
	}
}

// A process that did not stop in order may have written what it did not keep; a machine that lost power certainly may.
func TestPromiseEndsWithAProcessThatDoesNotStop(t *testing.T) { // R19, R22
	g, want, id := rescued(t, 4, block(3, 4))
	g.write(block(30, 2))
	old := g.shelf
	g.open(false)
	defer func() { _ = old.Stop() }()
	if _, err := g.exported(id, false, nil); !errors.Is(err, ErrNotWhole) || !strings.Contains(err.Error(), "in order") {
		t.Fatalf("read: %v", err)
	}
	got, err := g.exported(id, true, nil)
	must(t, err)
	now := g.content()
	differ(t, got[:7*blockdev.BlockSize], want[:7*blockdev.BlockSize])
	differ(t, got[30*blockdev.BlockSize:], now[30*blockdev.BlockSize:]) // what the resync did not overwrite is as it is now
	if i := g.shelf.List()[0]; i.Whole || i.Why == "" || i.Bytes != 4*blockdev.BlockSize {
		t.Errorf("it is told of as %+v", i)
	}
	must(t, g.shelf.Stop())
	g.open(false)
	if _, err := g.exported(id, false, nil); !errors.Is(err, ErrNotWhole) {
		t.Fatalf("a promise that had ended came back with a restart: %v", err)
	}
}

func TestPromiseEndsWithoutRoomAndNobodyWaits(t *testing.T) { // R19, R28
	g := newRig(t, 5)
	g.limit = 64 << 10
	must(t, g.shelf.Stop())
	g.open(false)
	want := g.content()
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(block(1, 2))
	info, err := g.shelf.Finish(time.Now())
	must(t, err)
	for b := range int64(60) {
		g.write(block(b, 2))
	}
	if i := g.shelf.List()[0]; i.Whole || len(g.ended) != 1 || !strings.Contains(g.ended[0], "limit") {
		t.Fatalf("it is told of as %+v, events %v", i, g.ended)
	}
	got, err := g.exported(info.ID, true, nil)
	must(t, err)
	differ(t, got[:3*blockdev.BlockSize][blockdev.BlockSize:], want[:3*blockdev.BlockSize][blockdev.BlockSize:])
}

func TestPromiseEndsRatherThanHaveWritersWait(t *testing.T) {
	g, _, id := rescued(t, 6, block(3, 4))
	g.shelf.cfg.Patience = time.Millisecond
	h := g.dev.Add(faultdev.Rule{Op: blockdev.OpRead, Stall: true})
	g.shelf.Keep(block(10, 1)) // its old content cannot be read
	h.Release()
	if i := g.shelf.List()[0]; i.Whole || len(g.ended) != 1 {
		t.Fatalf("it is told of as %+v, events %v", i, g.ended)
	}
	if _, err := g.exported(id, false, nil); !errors.Is(err, ErrNotWhole) {
		t.Fatalf("read: %v", err)
	}
}

func TestPromiseEndsOnAnotherBacking(t *testing.T) { // R16, R22
	g, _, id := rescued(t, 7, block(3, 4))
	must(t, g.shelf.Stop())
	g.attach = "2"
	g.open(false)
	if _, err := g.exported(id, false, nil); !errors.Is(err, ErrNotWhole) || !strings.Contains(err.Error(), "attachment") {
		t.Fatalf("read: %v", err)
	}
	if _, err := g.exported(id, true, nil); err != nil {
		t.Fatalf("what the resync overwrote is there all the same: %v", err)
	}
}

// What is closed before the process dies, and what it had made only, by the order on stable storage.
func TestCrashesLeaveOneOfTheStates(t *testing.T) { // R18, R19
	g := newRig(t, 8)
	must(t, g.shelf.Begin(testPoint, 5))
	g.open(false) // made, and the superblock did not say that it is in pieces
	if all := g.shelf.List(); len(all) != 0 {
		t.Fatalf("an image of nothing is left: %+v", all)
	}
	must(t, os.MkdirAll(filepath.Join(g.room.Path, "alpha-e9"), 0o700)) // a crash before the file was there
	g.open(true)
	if all := g.shelf.List(); len(all) != 0 {
		t.Fatalf("a directory of nothing is left: %+v", all)
	}
	want := g.content()
	must(t, g.shelf.Begin(testPoint, 6))
	g.resync(block(2, 3))
	g.open(true) // in the middle
	a, since := g.shelf.Live()
	if a == nil || !a.Live() || since != 6 {
		t.Fatalf("the way back is lost: %v, epoch %d", a, since)
	}
	if _, err := g.exported("alpha-e6-2", false, nil); !errors.Is(err, ErrLive) {
		t.Fatalf("read in the middle: %v", err)
	}
	if err := g.shelf.Remove("alpha-e6-2"); !errors.Is(err, ErrLive) {
		t.Fatalf("removed in the middle: %v", err)
	}
	g.resync(block(4, 3))
	g.open(false) // the superblock says that it is whole, and the label was not there yet
	g.same("alpha-e6-2", want)
	must(t, g.shelf.Begin(testPoint, 7))
	g.resync(block(9, 1))
	must(t, g.shelf.Drop())
	if all := g.shelf.List(); len(all) != 1 {
		t.Fatalf("images %+v, want one", all)
	}
	g.write(block(5, 9))
	must(t, g.room.Image("alpha-e6-2").Remove()) // a crash while it was removed
	must(t, g.shelf.Stop())
	g.open(false)
	if ids, err := g.room.IDs(); err != nil || len(ids) != 0 {
		t.Fatalf("left %v, %v", ids, err)
	}
}

func TestTwoImagesEachHaveTheirOwn(t *testing.T) {
	g, want, id := rescued(t, 9, block(3, 4))
	g.write(block(5, 10))
	second := g.content()
	must(t, g.shelf.Begin(testPoint, 8))
	if err := g.shelf.Begin(testPoint, 8); !errors.Is(err, ErrLive) {
		t.Fatalf("a second one in the same resync: %v", err)
	}
	for _, at := range []blockdev.Range{block(4, 3), block(30, 2)} {
		g.shelf.Keep(at) // as the backing under the resync has it
		g.resync(at)
	}
	info, err := g.shelf.Finish(time.Now())
	must(t, err)
	g.write(block(50, 4))
	g.same(id, want)
	g.same(info.ID, second)
	must(t, g.shelf.Remove(id))
	g.write(block(10, 4))
	g.same(info.ID, second)
	if _, err := g.exported(id, false, nil); !errors.Is(err, ErrNone) {
		t.Fatalf("read what was deleted: %v", err)
	}
	if err := g.shelf.Remove(id); !errors.Is(err, ErrNone) {
		t.Fatalf("deleted twice: %v", err)
	}
}

func TestSameEpochTwiceHasTwoNames(t *testing.T) {
	g, _, first := rescued(t, 10, block(3, 4))
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(block(1, 1))
	info, err := g.shelf.Finish(time.Now())
	must(t, err)
	if info.ID == first || info.ID != "alpha-e5-2" {
		t.Fatalf("names %q and %q", first, info.ID)
	}
}

func TestNoMoreThanMaxImages(t *testing.T) { // R28
	g := newRig(t, 11)
	for range MaxImages {
		must(t, g.shelf.Begin(testPoint, 5))
		g.resync(block(3, 1))
		_, err := g.shelf.Finish(time.Now())
		must(t, err)
	}
	if err := g.shelf.Begin(testPoint, 6); !errors.Is(err, ErrTooMany) {
		t.Fatalf("one more: %v", err)
	}
	must(t, g.shelf.Remove("alpha-e5-1"))
	must(t, g.shelf.Begin(testPoint, 6))
}

func TestFailedBeginLeavesNothing(t *testing.T) {
	g := newRig(t, 12)
	g.room.Space = &undo.Space{Reserve: func(total int64) int64 { return 1 << 62 }}
	err := g.shelf.Begin(testPoint, 6)
	if err == nil { // the header alone asks for no reserve
		a, _ := g.shelf.Live()
		w := make(told, 1)
		if _, err = a.Log(block(1, 1), w); err == nil {
			err = <-w
		}
		if !errors.Is(err, undo.ErrNoRoom) {
			t.Fatalf("told %v", err)
		}
		g.room.Space.Reserve = nil
		must(t, a.Reopen(g.dev)) // as when there is room again
		g.resync(block(1, 1))
		return
	}
	if ids, _ := g.room.IDs(); len(ids) != 0 {
		t.Fatalf("left %v", ids)
	}
}

// A label that is torn or of a newer program: the image is listed, and what it holds can be read.
func TestDamagedLabelLosesThePromiseOnly(t *testing.T) { // R22
	for name, change := range map[string]func([]byte) []byte{
		"damaged": func(p []byte) []byte { p[offBytes]++; return p },
		"short":   func(p []byte) []byte { return p[:100] },
		"newer":   func(p []byte) []byte { p[offVersion]++; return resum(p) },
		"unknown": func(p []byte) []byte { p[offBase] = 9; return resum(p) },
	} {
		g, want, id := rescued(t, 13, block(3, 4))
		must(t, g.shelf.Stop())
		path := filepath.Join(g.room.Path, id, "label")
		p, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, change(p), 0o600))
		g.open(false)
		if i := g.shelf.List(); len(i) != 1 || i[0].Whole || !strings.Contains(i[0].Why, "label") {
			t.Errorf("%s: told of as %+v", name, i)
		}
		if _, err := g.exported(id, false, nil); !errors.Is(err, ErrNotWhole) {
			t.Errorf("%s: read: %v", name, err)
		}
		got, err := g.exported(id, true, nil)
		must(t, err)
		differ(t, got[:7*blockdev.BlockSize], want[:7*blockdev.BlockSize])
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, change(bytes.Clone(p))) && name != "damaged" && name != "newer" {
			t.Errorf("%s: it was written to: %v", name, err)
		}
	}
}

func TestUnreadableReplicaSaysWhere(t *testing.T) {
	g, _, id := rescued(t, 14, block(3, 4))
	g.dev.Add(faultdev.Rule{Op: blockdev.OpRead, Err: syscall.EIO, Fail: true})
	if _, err := g.exported(id, false, nil); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), id) {
		t.Fatalf("read: %v", err)
	}
}

var update = flag.Bool("update", false, "write the golden file anew")

func goldenLabel() label {
	return label{closedMillis: 1764000009000, bytes: 14 * blockdev.BlockSize, end: 61952, base: baseEnded, why: "why it is no whole volume"}
}

func TestFormatIsPinned(t *testing.T) { // R22
	pinned(t, "label.v1.golden", goldenLabel(), (*label).encode, decodeLabel)
}

// What a label says is somebody else's error text: it may be of any length, and hold any byte.
func TestLabelIsReadWhateverItSays(t *testing.T) { // R22
	for why, want := range map[string]string{
		strings.Repeat("x", maxWhy-1) + "\u00fc": strings.Repeat("x", maxWhy-1) + "?", // it does not fit as a whole
		"open /a\x00b: no such file":             "open /a?b: no such file",
		"\xff is no text":                        "? is no text",
	} {
		l := goldenLabel()
		l.why = why
		got, err := decodeLabel(l.encode())
		must(t, err)
		if got.shown() != want {
			t.Errorf("%q is shown as %q", why, got.shown())
		}
		if again := got.encode(); !bytes.Equal(again, l.encode()) {
			t.Errorf("%q is encoded as something else", why)
		}
	}
}

// pinned demands that a record is encoded as in the golden file, and decoded from it.
func pinned[T comparable](t *testing.T, name string, l T, encode func(*T) []byte, decode func([]byte) (T, error)) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.WriteFile(path, encode(&l), 0o600))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(encode(&l), want) {
		t.Fatalf("the format is not that of %s: give it a new version", path)
	}
	if got, err := decode(want); err != nil || got != l {
		t.Fatalf("decoded %+v, %v", got, err)
	}
}

// fuzzed demands that what is decoded from the fields of a record of size bytes, under a checksum that fits, is encoded as
// the same.
func fuzzed[T comparable](f *testing.F, l T, size, fields int, encode func(*T) []byte, decode func([]byte) (T, error)) {
	f.Add(encode(&l)[:fields])
	f.Fuzz(func(t *testing.T, some []byte) {
		p := make([]byte, size)
		copy(p[:fields], some)
		resum(p)
		if got, err := decode(p); err == nil && !bytes.Equal(encode(&got), p) {
			t.Fatalf("%+v is encoded as something else", got)
		}
	})
}

func FuzzLabel(f *testing.F) {
	fuzzed(f, goldenLabel(), labelSize, offRest, (*label).encode, decodeLabel)
}

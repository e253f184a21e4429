package undo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
)

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 5)) }

func TestWayBackLeadsToThePoint(t *testing.T) { // R18
	g := rng(1)
	d := filled(t, g)
	want := content(t, d)
	a := begun(t, &memPlace{}, d)
	for range 200 {
		at := block(g.Int64N(60), 1+g.Int64N(4))
		if g.IntN(2) == 0 {
			at.Off, at.Len = at.Off+512, at.Len-1024 // parts of blocks
		}
		must(t, logged(a, at))
		if g.IntN(4) == 0 {
			must(t, d.Zero(at, true))
		} else {
			write(t, d, at, g)
		}
	}
	rollBack(t, a, d)
	same(t, d, want)
	rollBack(t, a, d) // once more, as after a crash in the middle
	same(t, d, want)
}

// The first old content of a block counts: what was written since is not logged.
func TestBlockIsLoggedOnce(t *testing.T) { // R18
	g := rng(2)
	d := filled(t, g)
	a := begun(t, &memPlace{}, d)
	must(t, logged(a, block(3, 2)))
	end := a.now().end
	write(t, d, block(3, 2), g)
	if ready, err := a.Log(block(3, 2), nil); !ready || err != nil {
		t.Fatalf("ready %t, %v, want it at once", ready, err)
	}
	must(t, logged(a, block(2, 4)))
	n := 0
	must(t, a.Each(func(at blockdev.Range, _ []byte) error {
		if at.Overlaps(block(3, 2)) {
			n++
		}
		return nil
	}))
	if n != 1 || a.now().end == end {
		t.Fatalf("blocks 3 and 4 are in %d records, want 1", n)
	}
	if p, bytes, ok := a.Point(); !ok || p.Epoch != 7 || p != testPoint || bytes != 4*blockdev.BlockSize {
		t.Errorf("point %v with %d bytes, %t", p, bytes, ok)
	}
}

// Who waits for the same blocks at the same time does not have them logged twice: the limit is that of the volume.
func TestBlocksOfOneGroupAreLoggedOnce(t *testing.T) { // R28
	d := filled(t, rng(15))
	p := &memPlace{}
	a := begun(t, p, d)
	h := p.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	c := make(told, 9)
	for i := range 9 {
		at := block(0, 63)
		if i == 0 {
			at = block(63, 1)
		}
		if _, err := a.Log(at, c); err != nil {
			t.Fatal(err)
		}
		for changed := h.Changed(); i == 0 && h.Waiting() == 0; changed = h.Changed() {
			<-changed // the others gather behind it
		}
	}
	h.Release()
	for range 9 {
		must(t, <-c)
	}
	must(t, logged(a, block(0, 64)))
	if most := int64(headerSize + 64*(recordSize+blockdev.BlockSize)); a.Taken() > most {
		t.Fatalf("the area takes %d bytes, the whole volume would take %d", a.Taken(), most)
	}
}

func TestZeroesTakeNoRoom(t *testing.T) {
	d := memdev.New(memdev.Config{Size: testVolume})
	a := begun(t, &memPlace{}, d)
	_, err := d.WriteAt(make([]byte, 8*blockdev.BlockSize), 0) // data, and all zeroes
	must(t, err)
	must(t, logged(a, blockdev.Range{Len: testVolume}))
	if end := a.now().end; end > headerSize+2*recordSize {
		t.Fatalf("the old content of a volume of zeroes takes %d bytes", end-headerSize)
	}
}

func TestNothingIsReadyBeforeItsFlush(t *testing.T) { // R18: durable before the overwrite
	g := rng(3)
	d := filled(t, g)
	p := &memPlace{}
	a := begun(t, p, d)
	h := p.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	c := make(told, 3)
	for i := range int64(2) {
		if ready, err := a.Log(block(5, 2), c); ready || err != nil {
			t.Fatalf("%d: ready %t, %v", i, ready, err)
		}
		for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
			<-changed
		}
	}
	if ready, _ := a.Log(block(5, 1), c); ready {
		t.Fatal("ready while its flush hangs")
	}
	h.Release()
	for range 3 {
		must(t, <-c)
	}
}

// faults.md D90, D92, D95
func TestD92FailureIsFinalAndTold(t *testing.T) {
	for name, c := range map[string]struct {
		rule faultdev.Rule
		want error
	}{
		"write EIO":    {faultdev.Rule{Op: blockdev.OpWrite, Err: syscall.EIO, Fail: true, Times: 1}, syscall.EIO},
		"write ENOSPC": {faultdev.Rule{Op: blockdev.OpWrite, Err: blockdev.ErrNoSpace, Fail: true, Times: 1}, ErrNoRoom},
		"flush EIO":    {faultdev.Rule{Op: blockdev.OpFlush, Err: syscall.EIO, Fail: true, Times: 1}, syscall.EIO},
	} {
		p, d := &memPlace{}, filled(t, rng(4))
		a := begun(t, p, d)
		must(t, logged(a, block(1, 1)))
		p.faults.Add(c.rule)
		if err := logged(a, block(3, 1)); !errors.Is(err, c.want) {
			t.Errorf("%s: told %v, want %v", name, err, c.want)
		}
		if err := logged(a, block(4, 1)); !errors.Is(err, c.want) {
			t.Errorf("%s: afterwards told %v, want the same", name, err)
		}
		if ready, err := a.Log(block(1, 1), nil); !ready || err != nil {
			t.Errorf("%s: what was durable before: ready %t, %v", name, ready, err)
		}
		must(t, a.Discard())
		if a.Live() || p.dev != nil {
			t.Errorf("%s: it is still there", name)
		}
	}
}

func TestUnreadableOldContentEndsTheWayBack(t *testing.T) {
	d := filled(t, rng(5))
	bad := faultdev.New(d)
	bad.Add(faultdev.Rule{Op: blockdev.OpRead, Err: syscall.EIO, Fail: true})
	a := begun(t, &memPlace{}, bad)
	if err := logged(a, block(1, 1)); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("told %v", err)
	}
}

func TestLimitIsNoRoom(t *testing.T) { // R18, R28
	d := filled(t, rng(6))
	a, err := Open(Config{Binding: testBinding(), Place: &memPlace{}, Limit: headerSize + 3*(recordSize+blockdev.BlockSize)}, d)
	must(t, err)
	must(t, a.Begin(testPoint, 9, d))
	must(t, logged(a, block(0, 2)))
	if err := logged(a, block(10, 5)); !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "undo_limit") {
		t.Fatalf("told %v, want ErrNoRoom", err)
	}
	must(t, a.Discard())
}

func TestFailedBeginLeavesNoWayBack(t *testing.T) {
	d := filled(t, rng(7))
	p := &memPlace{}
	a := opened(t, p, d)
	p.err = ErrNoRoom
	if err := a.Begin(testPoint, 9, d); !errors.Is(err, ErrNoRoom) || a.Live() {
		t.Fatalf("%v, live %t", err, a.Live())
	}
	if err := a.Discard(); !errors.Is(err, ErrNoRoom) {
		t.Fatalf("an area that cannot be removed: %v", err)
	}
}

func TestCloseTellsWhoWaits(t *testing.T) {
	d := filled(t, rng(8))
	p := &memPlace{}
	a := begun(t, p, d)
	h := p.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	c := make(told, 2)
	if _, err := a.Log(block(0, 1), c); err != nil {
		t.Fatal(err)
	}
	for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
		<-changed
	}
	if _, err := a.Log(block(1, 1), c); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	for a.Live() {
		time.Sleep(time.Millisecond)
	}
	h.Release()
	must(t, <-closed)
	if first, second := <-c, <-c; first != nil || !errors.Is(second, ErrClosed) {
		t.Fatalf("told %v and %v", first, second)
	}
	if _, err := a.Log(block(1, 1), c); !errors.Is(err, ErrClosed) {
		t.Fatalf("after the end: %v", err)
	}
}

// faults.md M60 to M66: whatever it is not made for is refused, field by field.
func TestAreaOfSomethingElseIsRefused(t *testing.T) { // R22
	d := filled(t, rng(9))
	p := &memPlace{}
	must(t, begun(t, p, d).Close())
	for field, change := range map[string]func(*Binding){
		"cluster id": func(b *Binding) { b.Cluster[3] = 1 },
		"volume id":  func(b *Binding) { b.Volume[3] = 1 },
		"node":       func(b *Binding) { b.Node = "beta" },
		"size":       func(b *Binding) { b.Size *= 2 },
		"attachment": func(b *Binding) { b.Attachment = "file:17:4712.99:5" },
		"epoch":      func(b *Binding) { b.Epoch = 8 },
	} {
		b := testBinding()
		change(&b)
		_, err := Open(Config{Binding: b, Place: p}, d)
		if !errors.Is(err, meta.ErrMismatch) || !strings.Contains(err.Error(), field+": found") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestM65NewerVersionIsRefusedUntouched(t *testing.T) { // R22
	d := filled(t, rng(10))
	p := &memPlace{}
	must(t, begun(t, p, d).Close())
	h := make([]byte, headerSize)
	_, err := p.dev.Reopen().ReadAt(h, 0)
	must(t, err)
	h[offVersion]++
	resum(h)
	raw := p.dev.Reopen()
	_, err = raw.WriteFUA(h, 0)
	must(t, err)
	before := content(t, raw)
	if _, err := Open(Config{Binding: testBinding(), Place: p}, d); !errors.Is(err, ErrVersion) {
		t.Fatalf("a newer version: %v", err)
	}
	if string(content(t, raw)) != string(before) {
		t.Fatal("it was written to")
	}
}

// An area in a directory: made, filled, read back by the next process, removed.
func TestDirectoryKeepsAnAreaOverAProcess(t *testing.T) {
	g := rng(11)
	d := filled(t, g)
	want := content(t, d)
	p := &Dir{Path: filepath.Join(t.TempDir(), "undo")}
	a := begun(t, p, d)
	for i := range int64(30) {
		must(t, logged(a, block(2*i, 1)))
		write(t, d, block(2*i, 1), g)
	}
	must(t, a.Close())
	b := opened(t, p, d)
	if _, bytes, ok := b.Point(); !ok || bytes != 30*blockdev.BlockSize || b.Damage() != "" {
		t.Fatalf("%d bytes, %t, damage %q", bytes, ok, b.Damage())
	}
	must(t, logged(b, block(1, 1)))
	write(t, d, block(1, 1), g)
	rollBack(t, b, d)
	same(t, d, want)
	must(t, b.Discard())
	if _, err := os.Stat(p.Path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it is still there: %v", err)
	}
	if c := opened(t, p, d); c.Live() {
		t.Fatal("live after it was discarded")
	}
}

func TestReserveOfTheFileSystemIsLeftAlone(t *testing.T) {
	d := filled(t, rng(12))
	all := false
	p := &Dir{Path: filepath.Join(t.TempDir(), "undo"), Space: &Space{Reserve: func(total int64) int64 {
		if all {
			return total
		}
		return 0
	}}}
	a := begun(t, p, d)
	must(t, logged(a, block(0, 1)))
	all = true
	if err := logged(a, block(1, 1)); !errors.Is(err, ErrNoRoom) {
		t.Fatalf("told %v, want ErrNoRoom", err)
	}
}

// A process that died while it removed an area may have left the file gone, and not durably so: a power cut would bring it
// back beside blocks that were overwritten without it. The next process has it gone before it is used.
func TestThatThereIsNoAreaIsDurableWhenItIsOpened(t *testing.T) { // R18
	p := &memPlace{}
	removed := 0
	p.look = func() { removed++ }
	a := opened(t, p, filled(t, rng(9)))
	if a.Live() || removed == 0 {
		t.Errorf("live %t; the place was asked %d times to have the file gone", a.Live(), removed)
	}
	p.err = errors.New("read-only file system")
	if _, err := Open(Config{Binding: testBinding(), Place: p}, nil); !errors.Is(err, p.err) {
		t.Errorf("it opens although that cannot be made durable: %v", err)
	}
}

// The reserve is one for all areas of a node: each finds room for its group alone, and only one of them may take it.
func TestAreasTogetherLeaveTheReserve(t *testing.T) { // R28
	const areas, group = 8, recordSize + blockdev.BlockSize
	space := &Space{Reserve: func(int64) int64 { return 1000 }}
	dir := t.TempDir()
	used := func() (n int64) {
		for i := range areas {
			if info, err := os.Stat(filepath.Join(dir, fmt.Sprint(i))); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	total := int64(areas*headerSize + 3*group + 1000)
	var all []*Area
	for i := range areas {
		all = append(all, begun(t, &Dir{Path: filepath.Join(dir, fmt.Sprint(i)), Space: space}, filled(t, rng(uint64(i)))))
	}
	var asking sync.WaitGroup // each has asked before any writes
	asking.Add(areas)
	space.free = func() (int64, int64, error) {
		free := total - used()
		asking.Done()
		asking.Wait()
		return free, total, nil
	}
	ended := make(chan error, areas)
	for _, a := range all {
		go func() { ended <- logged(a, block(0, 1)) }()
	}
	fit := 0
	for range areas {
		switch err := <-ended; {
		case err == nil:
			fit++
		case !errors.Is(err, ErrNoRoom):
			t.Error(err)
		}
	}
	if free := total - used(); fit != 3 || free != 1000 || space.taking != 0 {
		t.Fatalf("%d groups were written, %d bytes are free, %d count as under way", fit, free, space.taking)
	}
}

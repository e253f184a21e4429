package meta

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
)

// disk is a file in memory whose writes and syncs fail or are recorded.
type disk struct {
	mu       sync.Mutex
	content  []byte
	writeErr error
	syncErr  error
	writes   int
	syncs    int
	written  []byte // of the last write
	at       int64
}

func newDisk(t testing.TB) *disk { return &disk{content: content(t, created(t))} }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, d.content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writes++; d.writeErr != nil {
		return 0, d.writeErr
	}
	d.written, d.at = bytes.Clone(p), off
	return copy(d.content[off:], p), nil
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	return d.syncErr
}

func (d *disk) Close() error { return nil }

func (d *disk) open(t testing.TB) *File {
	t.Helper()
	f, err := openStore("superblock", d, binding(sample()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// faults.md M58: power fails at every byte of the write of an Update, front to back and in any order of sectors.
func TestM58TornWriteAtEveryByteLeavesOldOrNew(t *testing.T) {
	d := newDisk(t)
	f := d.open(t)
	for round := range 3 { // both copies get their turn
		before := bytes.Clone(d.content)
		old := f.Get()
		if err := f.Update(func(sb *Superblock) { sb.Epoch += 3; sb.CleanStop = CleanStop{}; sb.Inconsistent = !sb.Inconsistent }); err != nil {
			t.Fatal(err)
		}
		for cut := 0; cut <= copySize; cut++ {
			torn := bytes.Clone(before)
			copy(torn[d.at:], d.written[:cut])
			oldOrNew(t, torn, old, f.Get(), cut == copySize)
		}
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 500 {
			torn := bytes.Clone(before)
			for s := 0; s < copySize; s += 512 {
				if rng.IntN(2) == 0 {
					copy(torn[d.at+int64(s):], d.written[s:s+512])
				}
			}
			oldOrNew(t, torn, old, f.Get(), false)
		}
		if t.Failed() {
			t.Fatalf("round %d, seed %d", round, seed)
		}
	}
}

func oldOrNew(t *testing.T, torn []byte, old, new Superblock, complete bool) {
	t.Helper()
	c, err := choose(torn)
	switch {
	case err != nil:
		t.Errorf("after a torn write: %v", err)
	case *c.sb != old && *c.sb != new:
		t.Errorf("after a torn write: %+v, neither old nor new", *c.sb)
	case complete && *c.sb != new:
		t.Error("the complete write is not seen")
	}
}

// After a torn write the file is repaired, updated and torn again, many times: what was acknowledged is never lost.
func TestCrashesInARowLoseNothingAcknowledged(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	d := newDisk(t)
	for range 500 {
		f := d.open(t)
		acknowledged := f.Get()
		for range rng.IntN(4) {
			if err := f.Update(func(sb *Superblock) { sb.Epoch++ }); err != nil {
				t.Fatal(err)
			}
			acknowledged = f.Get()
		}
		before := bytes.Clone(d.content)
		if err := f.Update(func(sb *Superblock) { sb.Epoch++ }); err != nil {
			t.Fatal(err)
		}
		copy(before[d.at:], d.written[:rng.IntN(copySize+1)])
		d.content = before
		if got := d.open(t).Get().Epoch; got < acknowledged.Epoch || got > acknowledged.Epoch+1 {
			t.Fatalf("epoch %d after a crash, acknowledged was %d", got, acknowledged.Epoch)
		}
	}
}

func TestUpdateWritesTheOlderCopyAndSyncsOnce(t *testing.T) {
	d := newDisk(t)
	f := d.open(t)
	for i := range int64(4) {
		if err := f.Update(func(*Superblock) {}); err != nil {
			t.Fatal(err)
		}
		if want := (i + 1) % 2 * copySize; d.at != want || d.writes != int(i)+1 || d.syncs != int(i)+1 {
			t.Errorf("update %d wrote at %d (want %d), %d writes, %d syncs", i, d.at, want, d.writes, d.syncs)
		}
	}
}

// faults.md D92: after an error the file is failed, and says so to everyone.
func TestFailedUpdateFailsTheFileForGood(t *testing.T) {
	for name, fail := range map[string]func(*disk){
		"write": func(d *disk) { d.writeErr = syscall.ENOSPC },
		"sync":  func(d *disk) { d.syncErr = syscall.EIO },
	} {
		d := newDisk(t)
		f := d.open(t)
		old := f.Get()
		fail(d)
		if err := f.Update(func(sb *Superblock) { sb.Epoch++ }); !errors.Is(err, ErrFailed) {
			t.Errorf("%s error: %v, want ErrFailed", name, err)
		}
		if f.Get() != old {
			t.Errorf("%s error: Get shows what may not be durable", name)
		}
		d.writeErr, d.syncErr = nil, nil
		writes := d.writes
		if err := f.Update(func(sb *Superblock) { sb.Epoch++ }); !errors.Is(err, ErrFailed) || d.writes != writes {
			t.Errorf("%s error, then Update: %v after %d more writes; want ErrFailed and none", name, err, d.writes-writes)
		}
	}
}

func TestFailedRepairIsAnError(t *testing.T) {
	d := newDisk(t)
	d.content[copySize+offEpoch] ^= 1
	d.syncErr = syscall.EIO
	if _, err := openStore("superblock", d, binding(sample())); !errors.Is(err, ErrFailed) {
		t.Errorf("%v, want ErrFailed", err)
	}
}

func TestForbiddenChangesAreRefusedAndHarmless(t *testing.T) {
	d := newDisk(t)
	f := d.open(t)
	old := f.Get()
	for name, change := range map[string]func(*Superblock){
		"cluster":        func(sb *Superblock) { sb.ClusterID[0]++ },
		"volume":         func(sb *Superblock) { sb.VolumeID[0]++ },
		"node":           func(sb *Superblock) { sb.Node = "beta" },
		"size":           func(sb *Superblock) { sb.Size -= 4096 },
		"block size":     func(sb *Superblock) { sb.BlockSize = 512 },
		"device path":    func(sb *Superblock) { sb.DevicePath += "2" },
		"epoch lowered":  func(sb *Superblock) { sb.Epoch-- },
		"formation back": func(sb *Superblock) { sb.ReservedGen--; sb.Epoch += 100 },
		"too long":       func(sb *Superblock) { sb.Attachment = string(make([]byte, MaxAttachment+1)) },
		"NUL":            func(sb *Superblock) { sb.CleanStop.Attachment = "a\x00b" },
	} {
		if err := f.Update(change); err == nil || errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v; want a refusal that does not fail the file", name, err)
		}
	}
	if d.writes != 0 || f.Get() != old {
		t.Errorf("%d writes, %+v", d.writes, f.Get())
	}
	if err := f.Update(func(sb *Superblock) { sb.ReservedGen++; sb.Epoch = 0; sb.Generation = 99 }); err != nil {
		t.Errorf("a new formation with a low epoch: %v", err)
	}
	if got := f.Get().Generation; got != old.Generation+1 {
		t.Errorf("generation %d, want %d whatever the caller sets", got, old.Generation+1)
	}
}

func TestConcurrentUpdatesAllCount(t *testing.T) {
	path := created(t)
	f := open(t, path)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if err := f.Update(func(sb *Superblock) { sb.Epoch++ }); err != nil {
					t.Error(err)
				}
				f.Get()
			}
		})
	}
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got := open(t, path).Get().Epoch; got != sample().Epoch+40 {
		t.Errorf("epoch %d after 40 updates from %d", got, sample().Epoch)
	}
	if err := f.Update(func(*Superblock) {}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// A crash in the middle of Create leaves the file beside, which the next one overwrites.
func TestCreateAfterACrashInCreate(t *testing.T) {
	path := created(t)
	put(t, path+".new", []byte("half"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, binding(sample())); !errors.Is(err, ErrNoSuperblock) {
		t.Errorf("before the rename: %v", err)
	}
	if err := Create(path, sample()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file beside is still there: %v", err)
	}
	open(t, path)
}

func TestCreateRefusesWhatDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	for name, change := range map[string]func(*Superblock){
		"node": func(sb *Superblock) { sb.Node = string(bytes.Repeat([]byte("n"), MaxNode+1)) },
		"size": func(sb *Superblock) { sb.Size = 0 },
	} {
		sb := sample()
		change(&sb)
		if err := Create(dir+"/superblock", sb); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("a refused Create left %v", list)
	}
}

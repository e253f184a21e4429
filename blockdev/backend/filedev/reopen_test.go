package filedev

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// broken is a device whose last flush failed.
func broken(t *testing.T, path string, mode Mode) *Dev {
	t.Helper()
	d, err := Open(path, Config{Size: mib, Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if err := d.syncs.flush(fails); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	return d
}

// R23, R24: after Reopen flushes count again, what is there is there still, and nobody else could take the backing.
func TestReopenMakesFlushesCountAgainAndKeepsTheHold(t *testing.T) {
	for _, mode := range []Mode{Buffered, Direct} {
		path := image(t, mib)
		before := openDescriptors(t)
		d := broken(t, path, mode)
		data := bytes.Repeat([]byte{7}, 4096)
		if _, err := d.WriteAt(data, 8192); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second one replaces what the first one opened
			if err := d.Reopen(); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Flush(); err != nil {
			t.Errorf("mode %v: flush after Reopen: %v", mode, err)
		}
		got := make([]byte, 4096)
		if _, err := d.ReadAt(got, 8192); err != nil || !bytes.Equal(got, data) {
			t.Errorf("mode %v: read %v, %v", mode, got[:4], err)
		}
		if d.direct != (mode == Direct) {
			t.Errorf("mode %v: direct is %t after Reopen", mode, d.direct)
		}
		if _, err := Open(path, Config{Size: mib}); !errors.Is(err, ErrInUse) {
			t.Errorf("mode %v: another opening: %v, want it to be in use", mode, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if now := openDescriptors(t); now != before {
			t.Errorf("mode %v: %d descriptors open after Close, %d before Open", mode, now, before)
		}
	}
}

func TestReopenOfABlockDeviceKeepsItExclusive(t *testing.T) {
	dev := loopDevice(t, image(t, mib))
	d := broken(t, dev, Auto)
	if err := d.Reopen(); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); err != nil {
		t.Error(err)
	}
	if _, err := Open(dev, Config{Size: mib}); !errors.Is(err, ErrInUse) {
		t.Errorf("another opening: %v, want it to be in use", err)
	}
}

// R2, R26: with an operation in flight nothing is opened anew, and the failure stays.
func TestReopenIsRefusedWhileAnOperationIsInFlight(t *testing.T) {
	d := broken(t, image(t, mib), Buffered)
	if err := d.enter(blockdev.OpRead, blockdev.Range{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Reopen(); !errors.Is(err, ErrBusy) {
		t.Errorf("Reopen: %v, want busy", err)
	}
	d.gate.leave()
	if err := d.Flush(); !errors.Is(err, unix.EIO) {
		t.Errorf("flush: %v, want the first error", err)
	}
	if err := d.Reopen(); err != nil {
		t.Error(err)
	}
}

// Another file at the path is not what is held: it is refused, and what is held is used on.
func TestReopenRefusesAnotherFileUnderTheSamePath(t *testing.T) {
	path := image(t, mib)
	d := broken(t, path, Buffered)
	before := openDescriptors(t)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := d.Reopen(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Reopen(); !errors.Is(err, ErrInUse) {
		t.Errorf("another file: %v", err)
	}
	if now := openDescriptors(t); now != before {
		t.Errorf("%d descriptors open after refusals, %d before", now, before)
	}
	if err := d.Flush(); !errors.Is(err, unix.EIO) {
		t.Errorf("flush: %v, want the first error still", err)
	}
	if err := errors.Join(os.Rename(path+".old", path), d.Reopen(), d.Flush()); err != nil {
		t.Errorf("with the old one back: %v", err)
	}
}

func TestReopenRefusesWhatBecameTooSmallOrIsClosed(t *testing.T) {
	path := image(t, mib)
	d := broken(t, path, Buffered)
	if err := os.Truncate(path, mib/2); err != nil {
		t.Fatal(err)
	}
	if err := d.Reopen(); !errors.Is(err, ErrUnsuitable) {
		t.Errorf("too small: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Reopen(); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

package filedev

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hacluster/blockdev"
)

func TestWhatLiesBehindAHeldDeviceIsCleared(t *testing.T) {
	for name, path := range map[string]string{"file": filepath.Join(t.TempDir(), "file"), "block device": ""} {
		t.Run(name, func(t *testing.T) {
			old := bytes.Repeat([]byte("old."), 3*mib/4)
			if path == "" {
				path = loopDevice(t, memoryImage(t, 3*mib))
			}
			f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(old); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
			d := open(t, path, Config{Size: mib})
			for range 2 {
				if err := Clear(path, blockdev.Range{Off: mib, Len: mib}); err != nil {
					t.Fatal(err)
				}
			}
			p := make([]byte, mib)
			if _, err := d.ReadAt(p, 0); err != nil || !bytes.Equal(p, old[:mib]) {
				t.Errorf("what is in use was changed, %v", err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(t, path, Config{Size: 3 * mib})
			if _, err := d.ReadAt(p, mib); err != nil || len(bytes.Trim(p, "\x00")) > 0 {
				t.Errorf("there is content where it was cleared, %v", err)
			}
			if _, err := d.ReadAt(p, 2*mib); err != nil || !bytes.Equal(p, old[:mib]) {
				t.Errorf("what lies behind was changed, %v", err)
			}
		})
	}
}

func TestClearWritesZeroesWhereNothingElseIsOffered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 3*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := overwrite(f, blockdev.Range{Off: 4096, Len: 2*mib + 4096}); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(path)
	if err != nil || len(p) != 3*mib || bytes.Count(p, []byte("x")) != mib-4096 || p[4095] != 'x' || p[2*mib+8192] != 'x' {
		t.Errorf("%d bytes, %d of them left, %v", len(p), bytes.Count(p, []byte("x")), err)
	}
}

func TestNothingElseIsCleared(t *testing.T) {
	if err := Clear(filepath.Join(t.TempDir(), "absent"), blockdev.Range{Len: 4096}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	if err := Clear(t.TempDir(), blockdev.Range{Len: 4096}); !errors.Is(err, ErrUnsuitable) {
		t.Errorf("a directory: %v", err)
	}
}

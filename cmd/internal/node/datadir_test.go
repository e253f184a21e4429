package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What the votes lie in is made with all folders above it, also by a relative path, and found again by the next start.
// That its name outlives a power cut is what the laboratory's scenario power-all-standby shows.
func TestDataDirIsMadeWithTheFoldersAboveIt(t *testing.T) {
	t.Chdir(t.TempDir())
	for range 2 {
		d, err := openDataDir(filepath.Join("a", "b", "data"), "alpha", false)
		if err != nil {
			t.Fatal(err)
		}
		d.close()
	}
	if info, err := os.Stat(filepath.Join("a", "b", "data", "identity.json")); err != nil || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

const nobody = 65534

// A folder that another made, in one that this user may enter and not read, is used as it is.
func TestDataDirInAFolderThatCannotBeRead(t *testing.T) {
	above := t.TempDir()
	if err := os.Mkdir(filepath.Join(above, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // root reads every folder: this thread looks at files as another user does
		for _, f := range []string{above, filepath.Join(above, "data")} {
			if err := os.Chown(f, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Dir(above), 0o755); err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, err := unix.SetfsuidRetUid(nobody); err != nil {
			t.Fatal(err)
		}
		defer unix.SetfsuidRetUid(0)
	}
	if err := os.Chmod(above, 0o100); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(above, 0o700)
	if _, err := os.ReadDir(above); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("the folder can be read: %v", err)
	}
	d, err := openDataDir(filepath.Join(above, "data"), "alpha", false)
	if err != nil {
		t.Fatal(err)
	}
	d.close()
}

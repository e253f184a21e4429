package node

import (
	"os"
	"path/filepath"
	"testing"
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

// A folder that another made, in one that this user may enter and not read, is used as it is.
func TestDataDirInAFolderThatCannotBeRead(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every folder")
	}
	above := t.TempDir()
	if err := os.Mkdir(filepath.Join(above, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(above, 0o100); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(above, 0o700)
	d, err := openDataDir(filepath.Join(above, "data"), "alpha", false)
	if err != nil {
		t.Fatal(err)
	}
	d.close()
}

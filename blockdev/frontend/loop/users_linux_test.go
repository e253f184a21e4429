package loop

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attached is a device over a file, until the test ends.
func attached(t *testing.T) Device {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make loop devices")
	}
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(16 << 20); err != nil {
		t.Fatal(err)
	}
	d, err := Attach(path)
	if errors.Is(err, unix.EINVAL) {
		t.Skipf("no direct I/O on the file system of %s: %v", path, err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.Abandon()
		for deadline := time.Now().Add(10 * time.Second); d.Bound(); {
			if time.Now().After(deadline) {
				t.Errorf("%s is left", d.Path)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	if all := Find(path); len(all) != 1 || all[0] != d {
		t.Errorf("found %v, want %v", all, d)
	}
	return d
}

func TestWhoHasADeviceOpenIsFoundUnlessItIsUs(t *testing.T) {
	d := attached(t)
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if u := d.Users(); len(u) != 0 {
		t.Errorf("%v", u)
	}
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "100"}, &os.ProcAttr{Files: []*os.File{f}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = p.Kill()
		_, _ = p.Wait()
	}()
	u := d.Users()
	if len(u) != 1 || u[0].PID != p.Pid {
		t.Fatalf("%v, want pid %d", u, p.Pid)
	}
	if err := d.Detach(); !errors.Is(err, ErrBusy) {
		t.Errorf("a device in use was let go: %v", err)
	}
	f.Close()
	_ = p.Kill()
	_, _ = p.Wait()
	if again, err := os.Open(d.Path); err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
	if !d.Bound() {
		t.Error("it went with its last user")
	}
}

func TestFileOfADeadFileSystemIsKnownAgain(t *testing.T) {
	for backing, want := range map[string]bool{"/a/mnt/vol": true, "/a/mnt/vol (deleted)": true, "/a/mnt/vol2": false, "/vol": false, "": false} {
		if isOf(backing, "/a/mnt/vol") != want {
			t.Errorf("%q: %v", backing, !want)
		}
	}
}

func TestMountsAreFoundByNumberAndByName(t *testing.T) {
	d := Device{Path: "/dev/loop7", Number: 7}
	path := filepath.Join(t.TempDir(), "mountinfo")
	text := `36 35 7:7 / /srv/a\040b rw,noatime shared:1 - ext4 /dev/loop7 rw
37 35 0:44 / /srv/btrfs rw - btrfs /dev/loop7 rw
38 35 7:70 / /srv/no rw - ext4 /dev/loop70 rw
39 35 0:7 / /srv/nor rw - tmpfs none rw
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := d.mounts(path); len(got) != 2 || got[0] != "/srv/a b" || got[1] != "/srv/btrfs" {
		t.Errorf("%q", got)
	}
}

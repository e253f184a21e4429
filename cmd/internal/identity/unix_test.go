package identity

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestUnixSocketIsPrivateFromItsFirstMoment(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // the widest umask must not matter
	path := filepath.Join(t.TempDir(), "sub", "a.sock")
	ln, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	ln.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket outlived its listener: %v", err)
	}
}

func TestStaleUnixSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false) // as a killed process leaves it
	stale.Close()
	ln, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
}

func TestLivingUnixSocketIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	living, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Fatalf("err = %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first listener was harmed: %v", err)
	} else {
		c.Close()
	}
}

func TestWhatIsNotASocketIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("%s: err = %v", path, err)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("file now holds %q", b)
	}
}

func TestUnixPathThatDoesNotFitIsRefusedWithBothLengths(t *testing.T) {
	path := "/" + strings.Repeat("x", maxUnixPath)
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "108 bytes, a socket's may have 107") {
		t.Fatalf("err = %v", err)
	}
}

// Two daemons that start at once must not remove each other's fresh socket.
func TestOfManyStartersExactlyOneWins(t *testing.T) {
	dir := t.TempDir()
	for round := range 20 {
		path := filepath.Join(dir, strconv.Itoa(round))
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		stale.Close()

		var wg sync.WaitGroup
		start := make(chan struct{})
		won := make(chan net.Listener, 16)
		for range cap(won) {
			wg.Go(func() {
				<-start
				if ln, err := ListenUnix(path); err == nil {
					won <- ln
				}
			})
		}
		close(start)
		wg.Wait()
		close(won)
		if len(won) != 1 {
			t.Errorf("%d listeners own one path", len(won))
		}
		for ln := range won {
			ln.Close()
		}
	}
}

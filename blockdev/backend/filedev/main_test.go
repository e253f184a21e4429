package filedev

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// holdEnv makes the test program a second process that holds a backing until its input ends.
const holdEnv = "FILEDEV_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		holdUntilEOF(path)
		return
	}
	os.Exit(m.Run())
}

func holdUntilEOF(path string) {
	d, err := Open(path, Config{Size: blockdev.BlockSize})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = d.Close()
}

// heldByAnother starts a process that holds path, and returns its id.
func heldByAnother(t *testing.T, path string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the other process: %v", err)
		}
	})
	line := make([]byte, 256)
	n, _ := out.Read(line)
	if got := string(line[:n]); got != "held\n" {
		t.Fatalf("the other process says %q", got)
	}
	return cmd.Process.Pid
}

// image makes a sparse file.
func image(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// memoryImage makes one in memory where it can be: the tests that are not about a real filesystem should not wait for
// its disk.
func memoryImage(t testing.TB, size int64) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "filedev-test-")
	if err != nil {
		return image(t, size)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	needsLoop  = "a loop device takes root, losetup (Debian: mount) and the kernel's loop driver with a free device"
	needsMount = "mounting takes CAP_SYS_ADMIN, mount (Debian: mount) and the filesystem in the kernel"
)

// loopDevice shows a file as a block device, where that is permitted.
func loopDevice(t testing.TB, file string, options ...string) string {
	t.Helper()
	out, err := exec.Command("losetup", append(options, "--find", "--show", file)...).CombinedOutput()
	if err != nil {
		t.Skipf("%s: losetup: %v: %s", needsLoop, err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	return dev
}

// mount mounts, where that is permitted.
func mount(t testing.TB, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mounted here") // the blank is escaped in mountinfo
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Skipf("%s: mount %s: %v: %s", needsMount, strings.Join(args, " "), err, out)
	}
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

// makeExt4 makes a filesystem on a device, where the program for that is installed.
func makeExt4(t testing.TB, dev string) {
	t.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("mkfs.ext4 is not installed (Debian: e2fsprogs)")
	}
	if out, err := exec.Command("mkfs.ext4", "-q", dev).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 %s: %v: %s", dev, err, out)
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %v: %v: %s", name, args, err, out)
	}
}

func open(t testing.TB, path string, cfg Config) *Dev {
	t.Helper()
	d, err := Open(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // a test may have closed it
	return d
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func isDirect(t *testing.T, d *Dev) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_DIRECT != 0
}

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev/frontend/attach"
	"hacluster/cmd/internal/api"
)

// attached is a cluster whose volume is a local device of its primary. A lease is long enough for a daemon to be started within it,
// on a busy machine too.
func attached(t *testing.T, cfg Config) *rig {
	t.Helper()
	if err := attach.Supported(); err != nil {
		t.Skipf("no device can be attached here: %v", err)
	}
	if cfg.RTO == "" {
		cfg.RTO = "10s"
	}
	cfg.Attach = "fuse"
	r := healthy(t, cfg)
	r.untilDevice()
	return r
}

// untilDevice waits until the primary has the device, and tells who that is.
func (r *rig) untilDevice() (primary string) {
	r.t.Helper()
	s := r.until("the device is attached", func(s *api.Status) bool {
		return len(s.Volumes) == 1 && s.Volumes[0].Device != "" && PrimaryIs(s.Volumes[0].Primary)(s)
	})
	v := s.Volumes[0]
	if v.Device != r.Device(v.Primary) {
		r.t.Fatalf("the device is said to be %s, want %s", v.Device, r.Device(v.Primary))
	}
	return v.Primary
}

func (r *rig) run(name string, args ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// mount is a file system on a device, in a mount namespace of its own: those of other tests that begin meanwhile would else keep it
// mounted, with its device in use, when it is unmounted here.
type mount struct {
	at  string // in its namespace
	dir string // by which everybody reaches it
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// mounted makes a file system on the device of a node, if it is to, and mounts it, until the test ends.
func (r *rig) mounted(node string, mkfs bool) *mount {
	r.t.Helper()
	if mkfs {
		r.run("mkfs.ext4", "-q", "-F", r.Device(node))
	}
	at, err := os.MkdirTemp("", "hac-mnt")
	if err != nil {
		r.t.Fatal(err)
	}
	m := &mount{at: at, cmd: exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount -t ext4 "$0" "$1" && echo mounted && read x && umount "$1" && echo unmounted`, r.Device(node), at)}
	m.cmd.Stderr = os.Stderr
	in, err := m.cmd.StdinPipe()
	out, err2 := m.cmd.StdoutPipe()
	if err := errors.Join(err, err2, m.cmd.Start()); err != nil {
		r.t.Fatal(err)
	}
	m.in, m.out, m.dir = in, bufio.NewReader(out), fmt.Sprintf("/proc/%d/root%s", m.cmd.Process.Pid, at)
	r.t.Cleanup(func() {
		m.gone() // not waited for: a device that holds it is given up only later
		os.Remove(at)
	})
	m.says(r, "mounted")
	return m
}

// says waits for a word of who holds the namespace.
func (m *mount) says(r *rig, word string) {
	r.t.Helper()
	said := make(chan string, 1)
	go func() {
		line, _ := m.out.ReadString('\n')
		said <- strings.TrimSpace(line)
	}()
	select {
	case got := <-said:
		if got != word {
			r.t.Fatalf("%s is not %s: %q", m.at, word, got)
		}
	case <-time.After(patience):
		r.t.Fatalf("%s was not %s within %v", m.at, word, patience)
	}
}

// gone ends the namespace, and the mount with it.
func (m *mount) gone() {
	_ = m.cmd.Process.Kill()
	go func() { _ = m.cmd.Wait() }()
}

func (r *rig) unmount(m *mount) {
	r.t.Helper()
	if _, err := io.WriteString(m.in, "\n"); err != nil {
		r.t.Fatal(err)
	}
	m.says(r, "unmounted")
}

// save writes a file durably.
func save(path string, content []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// saving writes files durably, one after the other, until it is stopped, which tells how many there are.
func (r *rig) saving(dir, name string) (stop func() int) {
	ctx, cancel := context.WithCancel(r.ctx)
	n, done := 0, make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := save(filepath.Join(dir, fmt.Sprint(name, n)), contentOf(name, n)); err != nil {
				done <- err
				return
			}
			n++
			time.Sleep(2 * time.Millisecond)
		}
		done <- nil
	}()
	r.t.Cleanup(cancel)
	return func() int {
		r.t.Helper()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				r.t.Fatalf("a writer on the device saw an error: %v", err)
			}
		case <-time.After(patience):
			r.t.Fatal("a writer on the device waits for ever")
		}
		return n
	}
}

func contentOf(name string, n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%s %d\n", name, n)), 500)
}

func (r *rig) saved(dir, name string, n int) {
	r.t.Helper()
	for i := range n {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(name, i)))
		if err != nil || !bytes.Equal(b, contentOf(name, i)) {
			r.t.Fatalf("file %d of %d: %d bytes, %v", i, n, len(b), err)
		}
	}
}

// faults.md K124: a mount goes on across the death of the daemon, which is promoted anew on the same node.
func TestK124MountSurvivesItsDaemon(t *testing.T) {
	r := attached(t, Config{})
	node := r.untilDevice()
	m := r.mounted(node, true)
	dir := m.dir
	server := r.ServerPid(r.ctx, node)
	for i := range times(3, 20) {
		stop := r.saving(dir, fmt.Sprintf("round%d-", i))
		time.Sleep(200 * time.Millisecond)
		before := r.vol().Epoch
		r.Kill(node)
		time.Sleep(100 * time.Millisecond)
		r.start(node)
		s := r.until("promoted anew", func(s *api.Status) bool { return PrimaryIs(node)(s) && s.Volumes[0].Epoch > before })
		if e := s.Volumes[0].Epoch; e != before+1 {
			t.Fatalf("epoch %d before, %d after", before, e)
		}
		n := stop()
		if n == 0 {
			t.Fatal("nothing was written: this proves nothing")
		}
		r.saved(dir, fmt.Sprintf("round%d-", i), n)
		if s := r.ServerPid(r.ctx, node); s != server {
			t.Fatalf("process %d served the device, now %d", server, s)
		}
		r.until("healthy", Healthy)
	}
	r.unmount(m)
	r.run("e2fsck", "-f", "-n", r.Device(node))
	r.same()
}

// A daemon that is stopped and started within a lease, as an upgrade does, keeps the role for who uses its device; nothing else
// outlives it. A stop takes some seconds, so the lease is a long one here.
func TestMountSurvivesAStopOfItsDaemon(t *testing.T) {
	long(t, "TestK124MountSurvivesItsDaemon, which kills the daemon")
	r := attached(t, Config{RTO: "30s"})
	node := r.untilDevice()
	m := r.mounted(node, true)
	dir := m.dir
	for i := range times(1, 5) {
		name := fmt.Sprintf("round%d-", i)
		stop := r.saving(dir, name)
		time.Sleep(200 * time.Millisecond)
		before := r.vol().Epoch
		r.stop(node)
		r.untilLog(node, "in use on "+node)
		r.start(node)
		r.until("promoted anew", func(s *api.Status) bool { return PrimaryIs(node)(s) && s.Volumes[0].Epoch > before })
		r.saved(dir, name, stop())
		r.until("healthy", Healthy)
	}
	r.unmount(m)
	r.stop(node)
	if r.place(node).Runs() || r.place(node).Left() {
		t.Error("a device that nobody used outlives a stop")
	}
	r.start(node)
	r.until("healthy", Healthy)
	r.same()
	for _, n := range []string{"alpha", "beta"} {
		if r.place(n).Runs() || r.place(n).Left() {
			t.Errorf("%s: a device that nobody used outlives a stop", n)
		}
	}
}

// A hand-over is refused while the device is in use, and says by whom; unused, the device goes with the role.
func TestDeviceGoesWithTheRole(t *testing.T) {
	r := attached(t, Config{})
	node := r.untilDevice()
	m := r.mounted(node, true)
	dir := m.dir
	if err := save(filepath.Join(dir, "a"), []byte("kept")); err != nil {
		t.Fatal(err)
	}
	_, errs := r.admin(3, "failover", "vol")
	r.says(errs, "in use", "mounted at "+m.at, r.Device(node), node)
	if err := save(filepath.Join(dir, "b"), []byte("kept too")); err != nil {
		t.Fatalf("after a hand-over that was refused: %v", err)
	}
	r.unmount(m)
	for range times(3, 20) {
		to := other(node)
		r.admin(0, "failover", "vol", "--to", to)
		if got := r.untilDevice(); got != to {
			t.Fatalf("attached on %s, want %s", got, to)
		}
		if _, err := os.Lstat(r.Device(node)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s still has a device: %v", node, err)
		}
		node = to
		fio := []string{"--name=v", "--filename=" + r.Device(node), "--direct=1", "--ioengine=libaio", "--iodepth=16", "--bs=4k", "--offset=32m", "--size=8m",
			"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--rw=randwrite", "--do_verify=1", "--fsync=32"}
		r.run("fio", fio...)
		m = r.mounted(node, false)
		for name, want := range map[string]string{"a": "kept", "b": "kept too"} {
			if b, err := os.ReadFile(filepath.Join(m.dir, name)); err != nil || string(b) != want {
				t.Fatalf("on %s, %s is %q, %v", node, name, b, err)
			}
		}
		r.unmount(m)
		r.until("healthy", Healthy)
	}
	r.same()
}

// When the primary's machine is gone, daemon and server process, the standby has the device with all that was made durable. The old
// node is cleared up when it is back.
func TestStandbyHasTheDeviceAfterTheMachineIsGone(t *testing.T) {
	r := attached(t, Config{RTO: "3s"})
	node := r.untilDevice()
	m := r.mounted(node, true)
	dir := m.dir
	for i := range 30 {
		if err := save(filepath.Join(dir, fmt.Sprint("f", i)), contentOf("f", i)); err != nil {
			t.Fatal(err)
		}
	}
	server := r.ServerPid(r.ctx, node)
	r.Kill(node)
	if err := syscall.Kill(server, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.gone()
	to := r.untilDevice()
	if to == node {
		t.Fatalf("%s is primary, and its daemon is dead", node)
	}
	m = r.mounted(to, false)
	r.saved(m.dir, "f", 30)
	r.start(node)
	r.until("healthy", Healthy)
	deadline := time.Now().Add(patience)
	for r.place(node).Left() {
		if time.Now().After(deadline) {
			t.Fatalf("%s has not cleared up what its dead server process left", node)
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.unmount(m)
	r.same()
}

// Who lost the role with its device in use gets errors, and nothing of what it held reaches the volume.
func TestDeviceOfAnEarlierPrimaryGivesErrors(t *testing.T) {
	r := attached(t, Config{RTO: "3s"})
	node := r.untilDevice()
	m := r.mounted(node, true)
	dir := m.dir
	r.Kill(node)
	held := make(chan error, 1)
	go func() { held <- save(filepath.Join(dir, "late"), contentOf("late", 1)) }()
	r.untilDeviceOn(other(node))
	select {
	case err := <-held:
		t.Fatalf("a write ended while no daemon ran: %v", err)
	default:
	}
	r.start(node)
	select {
	case err := <-held:
		if err == nil {
			t.Fatal("a write of an earlier primary was acknowledged")
		}
	case <-time.After(patience):
		t.Fatal("a write of an earlier primary waits for ever")
	}
	r.unmount(m) // a dead mount can be removed
	r.until("healthy", Healthy)
	now := r.mounted(other(node), false)
	if _, err := os.Stat(filepath.Join(now.dir, "late")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was held is in the volume: %v", err)
	}
	r.unmount(now)
	r.same()
}

func (r *rig) untilDeviceOn(node string) {
	r.t.Helper()
	r.until("the device is attached on "+node, func(s *api.Status) bool {
		return PrimaryIs(node)(s) && s.Volumes[0].Device == r.Device(node)
	})
}

// Without a quorum the device waits; it goes on without an error.
func TestDeviceOfASuspendedVolumeWaits(t *testing.T) {
	r := attached(t, Config{RTO: "3s"})
	node := r.untilDevice()
	m := r.mounted(node, true)
	dir := m.dir
	r.signal(syscall.SIGSTOP, other(node), "gamma")
	time.Sleep(4 * time.Second) // the lease is over
	done := make(chan error, 1)
	go func() { done <- save(filepath.Join(dir, "f0"), contentOf("f", 0)) }()
	select {
	case err := <-done:
		t.Fatalf("a write ended without a quorum: %v", err)
	case <-time.After(3 * time.Second):
	}
	r.signal(syscall.SIGCONT, other(node), "gamma")
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the write waits although there is a quorum again")
	}
	r.saved(dir, "f", 1)
	r.unmount(m)
	r.same()
}

// What is discarded on the device is room again on both disks, and the device takes the size of the volume.
func TestDeviceDiscardsAndResizes(t *testing.T) {
	r := attached(t, Config{Size: "64MiB"})
	node := r.untilDevice()
	r.run("dd", "if=/dev/urandom", "of="+r.Device(node), "bs=1M", "count=32", "oflag=direct", "conv=fsync", "status=none")
	full := blocks(t, r.Disk(node))
	r.run("blkdiscard", "-o", "0", "-l", fmt.Sprint(32<<20), r.Device(node))
	for _, n := range []string{"alpha", "beta"} {
		if left := blocks(t, r.Disk(n)); left > full-30<<20 {
			t.Errorf("%s: %d bytes of %d are left after a discard of 32 MiB", n, left, full)
		}
	}
	r.resize()
	node = r.untilDevice()
	if got := strings.TrimSpace(r.run("blockdev", "--getsize64", r.Device(node))); got != fmt.Sprint(grown) {
		t.Errorf("the device has %s bytes", got)
	}
	r.same()
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

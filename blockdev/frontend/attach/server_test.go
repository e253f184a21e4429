package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev/frontend/loop"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// TestMain is also the Server that the tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Subcommand {
		if err := Serve(os.Args[2:], slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	patience = 30 * time.Second
	testSize = 16 << 20
)

// machine is a daemon that can be killed and started, and the place of one volume.
type machine struct {
	t       *testing.T
	place   Place
	mem     *nbdtest.Mem
	exports *nbdtest.Exports
	export  *nbdtest.Export
	stop    func()
	ended   chan error
	loops   map[loop.Device]string // that were made, with which of those that ever had its number it was
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skipf("no device can be attached here: %v", err)
	}
	dir, err := os.MkdirTemp("", "hac")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, place: Place{Dir: filepath.Join(dir, "attach"), Devs: filepath.Join(dir, "dev"), Volume: "vol"}, mem: nbdtest.NewMem(testSize), ended: make(chan error, 1), loops: map[loop.Device]string{}}
	t.Cleanup(func() {
		if m.place.Runs() {
			_, _ = m.place.Ask(context.Background(), Request{Do: DoAbandon, Why: "the test is over"})
		}
		if m.stop != nil {
			m.stop()
		}
		if err := m.place.Clean(slog.Default()); err != nil {
			t.Error(err)
		}
		for d, which := range m.loops {
			if d.Bound() && diskseq(d) == which {
				t.Errorf("%s is left", d.Path)
			}
		}
		os.RemoveAll(dir)
	})
	return m
}

func (m *machine) socket() string { return filepath.Join(filepath.Dir(m.place.Dir), "nbd.sock") }

// serve is the daemon in an epoch.
func (m *machine) serve(tenure Tenure) {
	m.t.Helper()
	m.exports = nbdtest.NewExports()
	m.export = nbdtest.SyncExport(m.mem, 4)
	m.export.SetDescription(tenure.String())
	m.exports.Serve("vol", m.export)
	server, err := nbd.New(m.exports, nbd.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	_ = os.Remove(m.socket())
	ln, err := net.Listen("unix", m.socket())
	if err != nil {
		m.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(context.Background(), ln)
	}()
	m.stop = func() {
		m.export.Close()
		server.Close()
		<-done
		m.stop = nil
	}
}

func (m *machine) launch() {
	m.t.Helper()
	if err := m.place.Launch(m.t.Context(), "/proc/self/exe", m.socket(), func(err error) { m.ended <- err }); err != nil {
		m.t.Fatal(err)
	}
	for _, d := range loop.Find(m.place.file()) {
		m.loops[d] = diskseq(d)
	}
}

// diskseq tells a device from others that get its number after it.
func diskseq(d loop.Device) string {
	seq, _ := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/diskseq", d.Number))
	return string(seq)
}

func (m *machine) ask(do string) *Reply {
	m.t.Helper()
	r, err := m.place.Ask(m.t.Context(), Request{Do: do, Why: "a test"})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// open opens the device without the page cache.
func (m *machine) open() int {
	m.t.Helper()
	fd, err := unix.Open(m.place.Link(), unix.O_RDWR|unix.O_CLOEXEC|unix.O_DIRECT, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return fd
}

// block is aligned as O_DIRECT wants it.
func block(t *testing.T, fill byte) []byte {
	t.Helper()
	p, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(p) })
	copy(p, bytes.Repeat([]byte{fill}, len(p)))
	return p
}

func (m *machine) gone() {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(patience):
		m.t.Fatal("the server process does not end")
	}
	if m.place.Runs() {
		m.t.Error("its lock is held by nobody")
	}
	if _, err := os.Lstat(m.place.Link()); !errors.Is(err, os.ErrNotExist) {
		m.t.Errorf("the link is left: %v", err)
	}
	if mounted(m.place.mount()) {
		m.t.Error("the mount is left")
	}
}

var first = Tenure{ID: "v", Epoch: 5, Since: 5}

func TestDeviceReadsWritesFlushesAndDiscards(t *testing.T) {
	m := newMachine(t)
	m.serve(first)
	m.launch()
	fd := m.open()
	data := block(t, 7)
	if n, err := unix.Pwrite(fd, data, 8192); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	before := m.mem.Counts()
	if err := unix.Fsync(fd); err != nil {
		t.Fatal(err)
	}
	if after := m.mem.Counts(); after.Flushes == before.Flushes {
		t.Error("an fsync of the device did not flush the volume")
	}
	if got := m.mem.Snapshot()[8192:12288]; !bytes.Equal(got, data) {
		t.Error("the volume does not have what was written")
	}
	got := block(t, 0)
	if n, err := unix.Pread(fd, got, 8192); n != 4096 || err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d, %v", n, err)
	}
	for name, mode := range map[string]uint32{"discard": unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, "zeroes": unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE} {
		if _, err := unix.Pwrite(fd, data, 8192); err != nil {
			t.Fatal(err)
		}
		zeroed := m.mem.Counts().Zeroes
		if err := unix.Fallocate(fd, mode, 8192, 4096); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := m.mem.Snapshot()[8192:12288]; !bytes.Equal(got, make([]byte, 4096)) || m.mem.Counts().Zeroes == zeroed {
			t.Errorf("%s did not reach the volume", name)
		}
	}
	if r := m.ask(DoUsers); len(r.Users) != 1 || !r.Connected || r.Epoch != 5 || r.Size != testSize {
		t.Errorf("%+v: the test itself is the only user", r)
	}
	unix.Close(fd)
	if r := m.ask(DoRelease); r.Busy {
		t.Errorf("busy: %v", r.Users)
	}
	m.gone()
}

// Requests wait while no daemon serves, and go on in the next one's epoch.
func TestRequestsAreHeldAcrossARestartOfTheDaemon(t *testing.T) {
	m := newMachine(t)
	m.serve(first)
	m.launch()
	fd := m.open()
	defer unix.Close(fd)
	for n := range uint64(5) {
		m.stop()
		data, done := block(t, byte(n+1)), make(chan error, 1)
		go func() {
			_, err := unix.Pwrite(fd, data, 0)
			done <- errors.Join(err, unix.Fsync(fd))
		}()
		select {
		case err := <-done:
			t.Fatalf("round %d: a write ended while no daemon served: %v", n, err)
		case <-time.After(200 * time.Millisecond):
		}
		m.serve(Tenure{ID: "v", Epoch: 6 + n, Since: 5})
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("round %d: %v", n, err)
			}
		case <-time.After(patience):
			t.Fatalf("round %d: the write is held although the daemon serves again", n)
		}
		if got := m.mem.Snapshot()[:4096]; !bytes.Equal(got, data) {
			t.Fatalf("round %d: the volume does not have what was written", n)
		}
	}
}

// What was held while another node was primary never reaches the volume, and its user gets an error.
func TestRequestsEndWithAnErrorWhenAnotherWasPrimary(t *testing.T) {
	m := newMachine(t)
	m.serve(first)
	m.launch()
	fd := m.open()
	defer unix.Close(fd)
	m.stop()
	done := make(chan error, 1)
	data := block(t, 9)
	go func() { _, err := unix.Pwrite(fd, data, 0); done <- err }()
	time.Sleep(100 * time.Millisecond)
	m.serve(Tenure{ID: "v", Epoch: 7, Since: 7})
	select {
	case err := <-done:
		if !errors.Is(err, unix.EIO) {
			t.Errorf("%v, want EIO", err)
		}
	case <-time.After(patience):
		t.Fatal("the write is still held")
	}
	m.gone()
	if got := m.mem.Snapshot()[:4096]; !bytes.Equal(got, make([]byte, 4096)) {
		t.Fatal("a write of an earlier time reached the volume")
	}
	m.launch() // a new device, while the old one is still open
	if fd := m.open(); fd < 0 {
		t.Fatal("no new device")
	} else {
		unix.Close(fd)
	}
}

func TestDeviceInUseIsNotLetGo(t *testing.T) {
	m := newMachine(t)
	m.serve(first)
	m.launch()
	fd := m.open()
	r := m.ask(DoRelease)
	if want := fmt.Sprintf("pid %d", os.Getpid()); !r.Busy || len(r.Users) == 0 || !strings.Contains(r.Users[0], want) {
		t.Fatalf("%+v, want busy by %s", r, want)
	}
	if _, err := unix.Pwrite(fd, block(t, 3), 0); err != nil {
		t.Errorf("it does not work any more: %v", err)
	}
	unix.Close(fd)
	fd = m.open() // it did not go with its last user
	unix.Close(fd)
	if r := m.ask(DoRelease); r.Busy {
		t.Errorf("busy by %v", r.Users)
	}
	m.gone()
}

// A release that waits for somebody who looks at the device may meet an abandonment.
func TestDeviceGoesOnce(t *testing.T) {
	m := newMachine(t)
	m.serve(first)
	uri := "nbd+unix:///vol?socket=" + url.QueryEscape(m.socket())
	client, err := nbdclient.Open(t.Context(), []string{uri}, nbdclient.ReconnectConfig{Limit: patience})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{place: m.place, log: slog.New(slog.DiscardHandler), dev: &held{client}, over: make(chan struct{})}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { s.gone(errors.New("a test")) })
	}
	both.Wait()
	<-s.over
}

// faults.md K124: what a killed server process leaves is cleared away, in use or not, and a new one starts.
func TestK124KilledServerIsClearedAway(t *testing.T) {
	for _, inUse := range []bool{false, true} {
		m := newMachine(t)
		m.serve(first)
		m.launch()
		fd := m.open()
		if !inUse {
			unix.Close(fd)
		}
		if m.place.Left() != true || !m.place.Runs() {
			t.Fatal("a device that is there is not seen")
		}
		if err := syscall.Kill(m.ask(DoStatus).PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-m.ended
		if m.place.Runs() || !m.place.Left() {
			t.Fatalf("in use %v: what is left of it is not seen", inUse)
		}
		_, _ = os.Stat(m.place.file()) // somebody looks at the dead mount
		if err := m.place.Clean(slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if m.place.Left() {
			t.Errorf("in use %v: something is left", inUse)
		}
		if inUse {
			if _, err := unix.Pwrite(fd, block(t, 1), 0); err == nil {
				t.Error("a dead device takes writes")
			}
		}
		m.launch()
		now := m.open()
		if _, err := unix.Pwrite(now, block(t, 2), 0); err != nil {
			t.Error(err)
		}
		unix.Close(now)
		if inUse {
			unix.Close(fd)
		}
	}
}

func TestServerThatCannotStartSaysWhy(t *testing.T) {
	m := newMachine(t)
	if err := os.MkdirAll(m.place.Link(), 0o755); err != nil { // a folder is in the way
		t.Fatal(err)
	}
	m.serve(first)
	err := m.place.Launch(t.Context(), "/proc/self/exe", m.socket(), func(err error) { m.ended <- err })
	if err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Errorf("%v", err)
	}
	<-m.ended
	if m.place.Runs() || mounted(m.place.mount()) {
		t.Error("something is left of a start that failed")
	}
	os.Remove(m.place.Link())
}

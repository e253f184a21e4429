package mount

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/lab/disk/unflushed"
)

// Config of a mount.
type Config struct {
	Dir   string // where it is seen
	Store string // folder of its own, where the bytes lie
	unflushed.Config
	Log *slog.Logger
}

// Mount is a mounted file system.
type Mount struct {
	cfg    Config
	fs     *filesystem
	server *fuse.Server
	done   chan struct{} // closed when it serves no more
}

// Open mounts. Only root may.
func Open(cfg Config) (*Mount, error) {
	s, err := unflushed.Open(cfg.Store, cfg.Config)
	if err != nil {
		return nil, err
	}
	m := &Mount{cfg: cfg, fs: newFilesystem(s), done: make(chan struct{})}
	m.server, err = fuse.NewServer(m.fs, cfg.Dir, &fuse.MountOptions{
		AllowOther: true, DirectMountStrict: true, FsName: "hadisk", Name: "hadisk", MaxWrite: 1 << 20, MaxBackground: 256,
		DisableXAttrs: true, DisableSplice: true, DisableReadDirPlus: true, ExtraCapabilities: fuse.CAP_DIRECT_IO_ALLOW_MMAP,
		Logger: log.New(logWriter{cfg.Log}, "", 0),
	})
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", cfg.Dir, err)
	}
	go func() {
		defer close(m.done)
		m.server.Serve()
	}()
	if err := m.server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount at %s: %w", cfg.Dir, err), m.Close())
	}
	return m, nil
}

// Done is closed when the mount serves no more: somebody unmounted it.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Close unmounts. What hangs is let go, and fails; who has a file open afterwards gets errors.
func (m *Mount) Close() error {
	m.fs.faults.clear(true)
	// Without force first: if nobody uses it, nobody has to see an error. MNT_FORCE ends the connection, and with it
	// every request that waits for an answer; detaching takes it out of the tree whoever still uses it.
	err := unix.Unmount(m.cfg.Dir, 0)
	if err != nil {
		err = errors.Join(ignore(unix.Unmount(m.cfg.Dir, unix.MNT_FORCE), unix.EBUSY), ignore(unix.Unmount(m.cfg.Dir, unix.MNT_DETACH), unix.EINVAL))
	}
	<-m.done
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.cfg.Dir, err)
	}
	return nil
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// Fault puts a fault in force.
func (m *Mount) Fault(f Fault) error { return m.fs.faults.add(f) }

// Go ends all faults and lets go what hangs; it tells how many operations hung.
func (m *Mount) Go() (released int) { return m.fs.faults.clear(false) }

// Rot changes bytes of every file that the pattern names, and tells how many files that were.
func (m *Mount) Rot(off, length int64, glob string) (files int, err error) {
	pattern := Fault{Kind: EIO, Glob: glob}
	if err := pattern.validate(); err != nil {
		return 0, err
	}
	err = m.fs.store.Walk(func(n *unflushed.Node, path string) error {
		if !pattern.strikes(Read, path) {
			return nil
		}
		files++
		return m.fs.store.Rot(n, off, length)
	})
	return files, err
}

// letGo is how long a power cut waits for the processes of the dead machine to close their files: the kernel tells of a
// close after the process has ended.
const letGo = 10 * time.Second

// PowerCut does what the loss of power does to the files. Whoever used them must have been killed; what hangs fails.
func (m *Mount) PowerCut(mode unflushed.Mode, seed uint64) (unflushed.Cut, error) {
	m.fs.faults.clear(true)
	deadline := time.Now().Add(letGo)
	for {
		users := m.fs.store.InUse()
		if len(users) == 0 {
			return m.fs.store.PowerCut(mode, seed)
		}
		if time.Now().After(deadline) {
			return unflushed.Cut{}, fmt.Errorf("files are open: %s: kill who uses them first", strings.Join(users, ", "))
		}
		select {
		case <-m.done:
			return unflushed.Cut{}, errors.New("it is not mounted any more")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stats is what was done and which faults bit.
type Stats struct {
	unflushed.Counts
	Hanging int              // operations that hang now
	Bites   map[string]int64 // by kind of fault; rot: reads that met it
	Faults  []string         // in force
	InUse   []string         // files that are open
}

// Stats tells what was done.
func (m *Mount) Stats() Stats {
	s := Stats{Counts: m.fs.store.Counts(), Bites: map[string]int64{}, Faults: []string{}, InUse: m.fs.store.InUse()}
	f := m.fs.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, n := range maps.All(f.bites) {
		s.Bites[string(k)] = n
	}
	if s.RotRead > 0 {
		s.Bites[string(Rot)] = s.RotRead
	}
	for _, n := range f.list {
		s.Faults = append(s.Faults, n.String())
	}
	s.Hanging = f.hanging
	return s
}

// Supported says why a mount is not possible here; nil: it is.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may mount")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("FUSE is not available: %w", err)
	}
	return f.Close()
}

// logWriter takes go-fuse's lines.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Warn("the FUSE library says", "line", strings.TrimSpace(string(p)))
	return len(p), nil
}

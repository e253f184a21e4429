// Package unflushed keeps files the way a disk with a volatile cache does: what was written can be read at once, and is
// durable only after a flush. It remembers how to take back what is not durable, and PowerCut does so: wholly, at
// random by sectors, or at one moment with the write of that moment torn.
//
//	content   durable after Sync of the file, or when written durably (O_DSYNC, RWF_DSYNC)
//	names     (create, rename, unlink, mkdir, rmdir) durable after SyncDir of the directory; a Store that is lenient
//	          is like ext4: any flush carries all earlier changes of names with it, and replacing a file by rename
//	          flushes the new one
//
// The bytes lie in ordinary files below one folder, which hold the newest state at every moment; when the process ends,
// all of it counts as durable. It refuses hard links. It knows nothing of mounts or faults: package mount shows it to
// the kernel.
package unflushed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Config of a store.
type Config struct {
	// Lenient makes names durable the way ext4 does. Default: only SyncDir does.
	Lenient bool
	// Cache bounds the memory that taking back may need, in bytes. Beyond it a file's oldest changes become durable, as
	// a disk writes out what its cache cannot hold. Default 256 MiB.
	Cache int64
}

// Store is a tree of files. Its methods may be called concurrently.
type Store struct {
	cfg  Config
	dir  string
	root *Node

	mu      sync.Mutex // guards the tree, the journal and graves; taken before the mutex of a node
	nodes   map[uint64]*Node
	lastID  uint64
	journal []*rename
	graves  int

	counters counters
}

// Node is a file, directory, socket or symbolic link.
type Node struct {
	ID   uint64
	kind uint32 // S_IFMT

	// guarded by Store.mu
	parent   *Node
	name     string
	children map[string]*Node // those met so far
	grave    string           // where it lies after its name is gone
	gone     bool             // for ever

	mu      sync.Mutex // guards what follows; held across I/O on the file below, which does not wait for anybody
	fd      int        // -1: closed
	users   int
	log     []*change
	bytes   int64 // bound by the log
	durable int64 // size after a power cut that loses everything not flushed
	rotten  []seg
}

const (
	dataDir  = "data"
	graveDir = "grave"
	rootID   = 1
)

// Open opens the store in dir, and makes one there if it is empty. Everything found counts as durable.
func Open(dir string, cfg Config) (*Store, error) {
	if cfg.Cache <= 0 {
		cfg.Cache = 256 << 20
	}
	if err := os.RemoveAll(filepath.Join(dir, graveDir)); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	for _, sub := range []string{dataDir, graveDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	s := &Store{cfg: cfg, dir: dir, nodes: map[uint64]*Node{}, lastID: rootID}
	s.root = &Node{ID: rootID, kind: unix.S_IFDIR, children: map[string]*Node{}, fd: -1}
	s.nodes[rootID] = s.root
	return s, nil
}

// Node finds a node by its number, also one without a name that somebody has open.
func (s *Store) Node(id uint64) (*Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	if n == nil {
		return nil, unix.ESTALE
	}
	return n, nil
}

// Path is a node's path within the store, for people and patterns.
func (s *Store) Path(n *Node) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return within(n)
}

func within(n *Node) string {
	if n.parent == nil {
		return "/"
	}
	return filepath.Join(within(n.parent), n.name)
}

// below is where a node lies in the folder of the store.
func (s *Store) belowLocked(n *Node) string {
	if n.grave != "" {
		return n.grave
	}
	if n.parent == nil {
		return filepath.Join(s.dir, dataDir)
	}
	return filepath.Join(s.belowLocked(n.parent), n.name)
}

// Lookup finds an entry of a directory.
func (s *Store) Lookup(dir *Node, name string) (*Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookupLocked(dir, name)
}

func (s *Store) lookupLocked(dir *Node, name string) (*Node, error) {
	if n := dir.children[name]; n != nil {
		return n, nil
	}
	if dir.kind != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(s.belowLocked(dir), name), &st); err != nil {
		return nil, err
	}
	return s.addLocked(dir, name, st.Mode), nil
}

func (s *Store) addLocked(dir *Node, name string, mode uint32) *Node {
	s.lastID++
	n := &Node{ID: s.lastID, kind: mode & unix.S_IFMT, parent: dir, name: name, fd: -1}
	if n.kind == unix.S_IFDIR {
		n.children = map[string]*Node{}
	}
	s.nodes[n.ID] = n
	dir.children[name] = n
	return n
}

// Stat tells a node's attributes.
func (s *Store) Stat(n *Node) (st unix.Stat_t, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = unix.Lstat(s.belowLocked(n), &st)
	return st, err
}

// Statfs tells about the file system below.
func (s *Store) Statfs() (st unix.Statfs_t, err error) {
	err = unix.Statfs(s.dir, &st)
	return st, err
}

// Chmod, Chown and Utimes are durable at once: nothing depends on when they are.
func (s *Store) Chmod(n *Node, mode uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return unix.Chmod(s.belowLocked(n), mode)
}

// Chown sets owner and group; -1 leaves one as it is.
func (s *Store) Chown(n *Node, uid, gid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return unix.Lchown(s.belowLocked(n), uid, gid)
}

// Utimes sets the times of access and change.
func (s *Store) Utimes(n *Node, ts [2]unix.Timespec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return unix.UtimesNanoAt(unix.AT_FDCWD, s.belowLocked(n), ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// Readlink tells where a symbolic link leads.
func (s *Store) Readlink(n *Node) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.Readlink(s.belowLocked(n))
}

// Entries lists a directory.
func (s *Store) Entries(dir *Node) ([]os.DirEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.ReadDir(s.belowLocked(dir))
}

// Use opens the file for a user, who calls Leave in the end.
func (s *Store) Use(n *Node) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone && n.fd < 0 {
		return unix.ESTALE
	}
	if err := s.openLocked(n); err != nil {
		return err
	}
	n.users++
	return nil
}

// openLocked opens the file below; both mutexes are held.
func (s *Store) openLocked(n *Node) error {
	if n.fd >= 0 {
		return nil
	}
	fd, err := unix.Open(s.belowLocked(n), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	n.fd, n.durable = fd, st.Size
	return nil
}

// Leave ends a Use.
func (s *Store) Leave(n *Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.mu.Lock()
	n.users--
	n.restLocked()
	n.mu.Unlock()
	if n.gone {
		s.buryLocked(n)
	}
}

// restLocked closes the file below when nobody needs it: a log needs it to take back.
func (n *Node) restLocked() {
	if n.fd >= 0 && n.users == 0 && len(n.log) == 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
}

// InUse lists the files that somebody has open.
func (s *Store) InUse() (paths []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		n.mu.Lock()
		if n.users > 0 {
			paths = append(paths, within(n))
		}
		n.mu.Unlock()
	}
	return paths
}

// Walk calls fn for each regular file that has a name.
func (s *Store) Walk(fn func(n *Node, path string) error) error {
	return s.walk(s.root, fn)
}

func (s *Store) walk(dir *Node, fn func(n *Node, path string) error) error {
	entries, err := s.Entries(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := s.Lookup(dir, e.Name())
		switch {
		case errors.Is(err, unix.ENOENT):
			continue // removed meanwhile
		case err != nil:
			return err
		case n.kind == unix.S_IFDIR:
			err = s.walk(n, fn)
		case n.kind == unix.S_IFREG:
			err = fn(n, s.Path(n))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

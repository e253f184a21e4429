package unflushed

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// rename is one change of names that is not durable yet.
type rename struct {
	seq    uint64
	dirs   []*Node // durable with any of them
	gone   *Node   // nil, or the directory that it removes: what happened in there is durable with it
	placed *Node   // nil, or what got its name by it
	into   []*Node // the directories that a node was moved into, up to the root: what placed them is durable with it
	undo   func()  // Store.mu held; changes are taken back newest first
	finish func()  // Store.mu held; it has become durable
}

func (s *Store) noteLocked(r *rename) {
	r.seq = s.counters.seq.Add(1)
	s.journal = append(s.journal, r)
}

// Create makes a file, socket or fifo. A file is opened as by Use.
func (s *Store) Create(dir *Node, name string, mode uint32) (*Node, error) {
	return s.make(dir, name, mode, func(path string) error {
		if mode&unix.S_IFMT == unix.S_IFREG {
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, mode&0o7777)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}
		return unix.Mknod(path, mode, 0)
	})
}

// Symlink makes a symbolic link.
func (s *Store) Symlink(dir *Node, name, target string) (*Node, error) {
	return s.make(dir, name, unix.S_IFLNK, func(path string) error { return unix.Symlink(target, path) })
}

// Mkdir makes a directory.
func (s *Store) Mkdir(dir *Node, name string, mode uint32) (*Node, error) {
	return s.make(dir, name, mode|unix.S_IFDIR, func(path string) error { return unix.Mkdir(path, mode) })
}

func (s *Store) make(dir *Node, name string, mode uint32, do func(path string) error) (*Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := do(filepath.Join(s.belowLocked(dir), name)); err != nil {
		return nil, err
	}
	n := s.addLocked(dir, name, mode)
	s.noteLocked(&rename{dirs: []*Node{dir}, placed: n, undo: func() { s.eraseLocked(n) }, finish: func() {}})
	return n, nil
}

// Unlink takes the name of a file away.
func (s *Store) Unlink(dir *Node, name string) error { return s.remove(dir, name, false) }

// Rmdir removes an empty directory.
func (s *Store) Rmdir(dir *Node, name string) error { return s.remove(dir, name, true) }

func (s *Store) remove(dir *Node, name string, isDir bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.lookupLocked(dir, name)
	if err != nil {
		return err
	}
	switch {
	case isDir && n.kind != unix.S_IFDIR:
		return unix.ENOTDIR
	case !isDir && n.kind == unix.S_IFDIR:
		return unix.EISDIR
	}
	back, err := s.displaceLocked(n)
	if err != nil {
		return err
	}
	s.noteLocked(&rename{dirs: []*Node{dir}, gone: directory(n), undo: back, finish: func() { s.forgetLocked(n) }})
	return nil
}

// directory is the node if it is one.
func directory(n *Node) *Node {
	if n == nil || n.kind != unix.S_IFDIR {
		return nil
	}
	return n
}

// displaceLocked moves a node to a grave and returns how to move it back.
func (s *Store) displaceLocked(n *Node) (back func(), err error) {
	from := s.belowLocked(n)
	if n.kind == unix.S_IFDIR {
		entries, err := os.ReadDir(from)
		if err != nil {
			return nil, err
		}
		if len(entries) > 0 {
			return nil, unix.ENOTEMPTY
		}
	}
	s.graves++
	grave := filepath.Join(s.dir, graveDir, fmt.Sprint(s.graves))
	if err := unix.Rename(from, grave); err != nil {
		return nil, err
	}
	n.grave = grave
	delete(n.parent.children, n.name)
	dir, name := n.parent, n.name
	return func() {
		n.grave = ""
		n.parent, n.name = dir, name
		s.must(unix.Rename(grave, s.belowLocked(n)))
		dir.children[name] = n
	}, nil
}

// Rename moves a node, and replaces what has the new name already.
func (s *Store) Rename(dir *Node, name string, newDir *Node, newName string, mayReplace bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.lookupLocked(dir, name)
	if err != nil {
		return err
	}
	replaced, err := s.lookupLocked(newDir, newName)
	switch {
	case err == nil && replaced == n:
		return nil
	case err == nil && !mayReplace:
		return unix.EEXIST
	case err == nil && (replaced.kind == unix.S_IFDIR) != (n.kind == unix.S_IFDIR):
		if replaced.kind == unix.S_IFDIR {
			return unix.EISDIR
		}
		return unix.ENOTDIR
	case err != nil && err != unix.ENOENT:
		return err
	}
	back, finish := func() {}, func() {}
	if replaced != nil {
		if back, err = s.displaceLocked(replaced); err != nil {
			return err
		}
		finish = func() { s.forgetLocked(replaced) }
		if s.cfg.Lenient {
			n.mu.Lock()
			s.settleLocked(n)
			n.mu.Unlock()
		}
	}
	if err := unix.Rename(s.belowLocked(n), filepath.Join(s.belowLocked(newDir), newName)); err != nil {
		back()
		return err
	}
	s.moveLocked(n, newDir, newName)
	s.noteLocked(&rename{dirs: []*Node{dir, newDir}, gone: directory(replaced), placed: n, into: above(dir, newDir), finish: finish, undo: func() {
		s.must(unix.Rename(s.belowLocked(n), filepath.Join(s.belowLocked(dir), name)))
		s.moveLocked(n, dir, name)
		back()
	}})
	return nil
}

// above is the directory that a node was moved into and those above it; nil when it stayed where it was. A journal has the
// directories that a move names in the transaction of the move: else what left its old place would be nowhere after a cut.
func above(from, to *Node) (dirs []*Node) {
	if from == to {
		return nil
	}
	for ; to != nil; to = to.parent {
		dirs = append(dirs, to)
	}
	return dirs
}

func (s *Store) moveLocked(n, dir *Node, name string) {
	delete(n.parent.children, n.name)
	n.parent, n.name = dir, name
	dir.children[name] = n
}

// SyncDir makes the names in a directory durable, and what they depend on: earlier changes that touch a directory of one
// that becomes durable, and those that made the directories which something was moved into, as a journal has them in the
// same or an earlier transaction.
func (s *Store) SyncDir(dir *Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Lenient {
		s.finishAllLocked()
		return
	}
	dirs, into, done, left := []*Node{dir}, []*Node(nil), []*rename(nil), []*rename(nil)
	for _, r := range slices.Backward(s.journal) {
		if slices.Contains(into, r.placed) || slices.ContainsFunc(r.dirs, func(d *Node) bool { return slices.Contains(dirs, d) }) {
			dirs = append(dirs, r.dirs...)
			into = append(into, r.into...)
			if r.gone != nil {
				dirs = append(dirs, r.gone)
			}
			done = append(done, r)
		} else {
			left = append(left, r)
		}
	}
	slices.Reverse(left)
	s.journal = left
	for _, r := range slices.Backward(done) {
		r.finish()
	}
}

func (s *Store) finishAllLocked() {
	for _, r := range s.journal {
		r.finish()
	}
	s.journal = nil
}

// eraseLocked takes the making of a node back, with whatever is in it.
func (s *Store) eraseLocked(n *Node) {
	path := s.belowLocked(n)
	delete(n.parent.children, n.name)
	s.must(os.RemoveAll(path))
	s.forgetAllLocked(n)
}

func (s *Store) forgetAllLocked(n *Node) {
	for _, c := range n.children {
		s.forgetAllLocked(c)
	}
	s.forgetLocked(n)
}

// forgetLocked ends a node whose name is gone for ever. It lives on for those who have it open.
func (s *Store) forgetLocked(n *Node) {
	n.mu.Lock()
	s.counters.unflushed.Add(-n.bytes)
	n.log, n.bytes = nil, 0
	n.restLocked()
	n.mu.Unlock()
	n.gone = true
	s.buryLocked(n)
}

func (s *Store) buryLocked(n *Node) {
	n.mu.Lock()
	used := n.users > 0
	n.mu.Unlock()
	if used {
		return
	}
	if n.grave != "" {
		s.must(os.RemoveAll(n.grave))
	}
	delete(s.nodes, n.ID)
}

// must: the folder below belongs to the store alone. When it fails, what the tests believe of it is wrong.
func (s *Store) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("the folder of the store fails: %v", err))
	}
}

package meta

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"hacluster/blockdev/failpoint"
)

// File is an open superblock. Its methods may be called concurrently.
type File struct {
	path     string
	store    store
	repaired []string
	// writing holds one token: who has it may write. It is a channel because it is held across I/O.
	writing chan struct{}

	mu     sync.Mutex
	sb     Superblock // what was last made durable
	failed error      // set by a failed write; final
	closed bool
}

// store is the file below, replaced by tests.
type store interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// Create makes the file of a superblock in an existing directory. It overwrites nothing but zeroes.
//
//	1 both copies go to a file beside it, which is synced   a crash before 3 leaves no superblock, and perhaps that file,
//	                                                        which the next Create overwrites
//	2 it is renamed into place                              a crash leaves none, or a complete one
//	3 the directory is synced                               a crash from here on leaves a complete one
func Create(path string, sb Superblock) error {
	if err := create(path, sb); err != nil {
		return fmt.Errorf("create superblock %s: %w", path, err)
	}
	return nil
}

func create(path string, sb Superblock) error {
	if err := sb.validate(); err != nil {
		return err
	}
	if err := refuseExisting(path); err != nil {
		return err
	}
	older := sb
	older.Generation, sb.Generation = 1, 2
	failpoint.Hit(failpoint.SuperblockCreate)
	beside := path + ".new"
	if err := writeSynced(beside, append(encode(&sb), encode(&older)...)); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SuperblockCreateWritten)
	if err := os.Rename(beside, path); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SuperblockCreateRenamed)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer failpoint.Hit(failpoint.SuperblockCreated)
	return errors.Join(dir.Sync(), dir.Close())
}

func refuseExisting(path string) error {
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !allZero(content):
		return fmt.Errorf("%w (%d bytes that are not all zero): remove the replica first if it is to be made anew", ErrExists, len(content))
	}
	return nil
}

func writeSynced(path string, p []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Open reads the superblock at path and holds it against b. When one of its copies was damaged, it is repaired from the
// other, and Repaired says so. Nothing is written in any other case.
func Open(path string, b Binding) (*File, error) {
	s, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNoSuperblock, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open superblock: %w", err)
	}
	f, err := openStore(path, s, b)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open superblock %s: %w", path, err), s.Close())
	}
	return f, nil
}

// Read is the superblock at path, whoever it belongs to. Nothing is written.
func Read(path string) (Superblock, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Superblock{}, fmt.Errorf("read superblock: %w", err)
	}
	c, err := choose(content[:min(len(content), fileSize)])
	if err != nil {
		return Superblock{}, fmt.Errorf("read superblock %s: %w", path, err)
	}
	return *c.sb, nil
}

func openStore(path string, s store, b Binding) (*File, error) {
	content := make([]byte, fileSize)
	n, err := s.ReadAt(content, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c, err := choose(content[:n])
	if err != nil {
		return nil, err
	}
	if err := b.check(c.sb); err != nil {
		return nil, err
	}
	f := &File{path: path, store: s, sb: *c.sb, writing: make(chan struct{}, 1)}
	if c.damage != nil {
		return f, f.repair(c.damage)
	}
	return f, nil
}

// repair overwrites the damaged copy by a next generation of the same content: the very write that Update does. Whether
// the damaged one was older or newer cannot be known, so the epoch may have gone back by one Update.
func (f *File) repair(damage error) error {
	if err := f.Update(func(*Superblock) {}); err != nil {
		return fmt.Errorf("repair a damaged copy (%w): %w", damage, err)
	}
	f.repaired = append(f.repaired, fmt.Sprintf("%v; written anew from the other, generation %d; if it was the newer one, its last change is lost",
		damage, f.sb.Generation-1))
	return nil
}

// Repaired says what Open found damaged and repaired, for the log; empty when all was well.
func (f *File) Repaired() []string { return f.repaired }

// Get returns what was last made durable.
func (f *File) Get() Superblock {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sb
}

// Update changes the superblock durably: when it returns nil, the change survives a power cut. Concurrent ones follow
// each other. change may set everything but the identity and the generation, and must not lower the epoch or the number of
// the size, and the size only with a higher number; otherwise nothing is written and the File stays good.
//
//	1 the next generation goes over the older copy   a crash leaves the newest copy, the old superblock
//	2 the file is synced                             a crash leaves the new superblock, or a torn copy beside the old one
//
// An I/O error leaves open whether the old or the new one is on the disk. The File has failed then: Get returns the old
// one, and every Update is refused with ErrFailed. The replica must not go on in a state that needs the change.
func (f *File) Update(change func(*Superblock)) error {
	f.writing <- struct{}{}
	defer func() { <-f.writing }()
	old, err := f.current()
	if err != nil {
		return fmt.Errorf("update superblock %s: %w", f.path, err)
	}
	next := old
	change(&next)
	next.Generation = old.Generation + 1
	if err := allowed(&old, &next); err != nil {
		return fmt.Errorf("update superblock %s: %w", f.path, err)
	}
	err = f.write(&next)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failed = err
		return fmt.Errorf("update superblock %s to generation %d: %w: %w", f.path, next.Generation, ErrFailed, err)
	}
	f.sb = next
	return nil
}

func (f *File) current() (Superblock, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return f.sb, os.ErrClosed
	case f.failed != nil:
		return f.sb, fmt.Errorf("%w earlier, and what is on the disk is unknown: repair the disk under it and restart: %w", ErrFailed, f.failed)
	}
	return f.sb, nil
}

// allowed refuses changes that no caller may make.
func allowed(old, next *Superblock) error {
	if err := next.validate(); err != nil {
		return err
	}
	was := *old
	if next.Resized > old.Resized || next.Resized == old.Resized && next.Size > old.Size {
		was.Size, was.Resized = next.Size, next.Resized
	}
	if err := sameIdentity(next, &was); err != nil {
		return fmt.Errorf("the identity of a replica never changes: %w", err)
	}
	if next.ReservedGen < old.ReservedGen || next.ReservedGen == old.ReservedGen && next.Epoch < old.Epoch {
		return fmt.Errorf("epoch (%d, %d) is lower than the stored (%d, %d)", next.ReservedGen, next.Epoch, old.ReservedGen, old.Epoch)
	}
	return nil
}

func (f *File) write(sb *Superblock) error {
	failpoint.Hit(failpoint.SuperblockUpdate)
	defer failpoint.Hit(failpoint.SuperblockUpdated)
	if _, err := f.store.WriteAt(encode(sb), int64(sb.Generation%2)*copySize); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SuperblockUpdateWritten)
	return f.store.Sync()
}

// Close waits for an Update and closes the file.
func (f *File) Close() error {
	f.writing <- struct{}{}
	defer func() { <-f.writing }()
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if closed {
		return fmt.Errorf("close superblock %s: %w", f.path, os.ErrClosed)
	}
	return f.store.Close()
}

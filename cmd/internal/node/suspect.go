package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"hacluster/blockdev"
)

// suspect remembers a failed write or flush of a backing from the moment at which the operating system reported it until
// the superblock has it on stable storage, which may take seconds on a sick disk. It need not survive a power cut, after
// which the incarnation is another anyway (R25): only the death of this process, after which the page cache may show as
// clean what the disk never took (R20). So it is a small file that is written and never flushed: the boot id, or nothing.
type suspect struct {
	file *os.File
	boot string // hexadecimal

	mu    sync.Mutex // held while the 32 bytes are written
	marks uint64     // how many failures were marked
}

func openSuspect(dir, boot string) (*suspect, error) {
	f, err := os.OpenFile(filepath.Join(dir, "suspect"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &suspect{file: f, boot: boot}, nil
}

// left reports whether a process of this boot died with a failure that it had not noted.
func (s *suspect) left() (bool, error) {
	b := make([]byte, len(s.boot)+1)
	n, err := s.file.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return string(b[:n]) == s.boot, err
}

// mark is called with each failure of the backing, before anybody else hears of it. What cannot be written here is
// noted in the superblock a moment later all the same.
func (s *suspect) mark(_ blockdev.Op, err error) {
	if errors.Is(err, blockdev.ErrClosed) || errors.Is(err, blockdev.ErrRange) {
		return // says nothing of the disk
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks++
	_, _ = s.file.WriteAt([]byte(s.boot), 0)
}

// during runs a change of the superblock, after which what was marked before it is noted there, or does not count any
// more. What is marked meanwhile stays.
func (s *suspect) during(change func() error) error {
	s.mu.Lock()
	before := s.marks
	s.mu.Unlock()
	if err := change(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.marks == before {
		return s.file.Truncate(0)
	}
	return nil
}

func (s *suspect) close() error { return s.file.Close() }

package undo

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Space is the free space of a file system that the areas of a node share, so that all of them together leave what others
// need: an area that filled it up would stop Raft, the superblocks and the maps with it. What is being written, and the file
// system does not count yet, is counted here. The zero Space leaves nothing.
type Space struct {
	// Reserve is how many bytes of the file system are left free for others. nil: none.
	Reserve func(total int64) int64
	// free replaces asking the file system, for tests.
	free func() (free, total int64, err error)

	mu     sync.Mutex
	taking int64 // bytes that are about to be written, of all areas
}

// take has grow bytes count as taken until done is called, which is when they are written, or are not to be. ErrNoRoom: they
// would be of the reserve.
//
// Of two that are under way at a time the later one counts the earlier one, or finds it counted by the file system: it asks
// after it has begun. So both fit, or the later one is refused.
func (s *Space) take(f *os.File, grow int64) (done func(), err error) {
	s.mu.Lock()
	ahead := s.taking
	s.taking += grow
	s.mu.Unlock()
	done = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taking -= grow
	}
	free, total, err := s.ask(f)
	keep := int64(0)
	if s.Reserve != nil {
		keep = s.Reserve(total)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("ask for the free space beside the undo area: %w", err)
	case free-ahead-grow < keep:
		err = fmt.Errorf("%w: %d bytes are free in its file system, of which %d are kept for others: give data_dir more space", ErrNoRoom, free-ahead, keep)
	}
	if err != nil {
		done()
		return nil, err
	}
	return done, nil
}

func (s *Space) ask(f *os.File) (free, total int64, err error) {
	if s.free != nil {
		return s.free()
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

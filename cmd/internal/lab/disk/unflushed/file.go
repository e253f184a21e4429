package unflushed

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// counters of a store.
type counters struct {
	seq                 atomic.Uint64
	writes, written     atomic.Int64
	flushes, dirFlushes atomic.Int64
	unflushed, evicted  atomic.Int64
	rotRead             atomic.Int64
}

// Counts is what a store has done so far.
type Counts struct {
	Writes        int64 // changes of content
	WrittenBytes  int64
	Flushes       int64 // of files
	DirFlushes    int64
	UnflushedHeld int64 // bytes that are kept to take changes back
	Evicted       int64 // changes that became durable because the cache was full
	RotRead       int64 // reads that met bytes that had rotted
	Unflushed     int   // changes of content that a power cut may lose
	Names         int   // changes of names that it may lose
}

// Counts tells what was done.
func (s *Store) Counts() Counts {
	c := &s.counters
	out := Counts{Writes: c.writes.Load(), WrittenBytes: c.written.Load(), Flushes: c.flushes.Load(), DirFlushes: c.dirFlushes.Load(),
		UnflushedHeld: c.unflushed.Load(), Evicted: c.evicted.Load(), RotRead: c.rotRead.Load()}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Names = len(s.journal)
	for _, n := range s.nodes {
		n.mu.Lock()
		out.Unflushed += len(n.log)
		n.mu.Unlock()
	}
	return out
}

// ReadAt reads from a file in use.
func (s *Store) ReadAt(n *Node, p []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.rotten {
		if r.part(off, off+int64(len(p))).n > 0 {
			s.counters.rotRead.Add(1)
			break
		}
	}
	return preadAll(n.fd, p, off)
}

func preadAll(fd int, p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := unix.Pread(fd, p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, err
		case n == 0:
			return done, nil
		default:
			done += n
		}
	}
	return done, nil
}

func pwriteAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (n *Node) sizeLocked() (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(n.fd, &st)
	return st.Size, err
}

// WriteAt writes to a file in use; durably: what it wrote survives every power cut from then on.
func (s *Store) WriteAt(n *Node, p []byte, off int64, durably bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	size, err := n.sizeLocked()
	if err != nil {
		return err
	}
	end := off + int64(len(p))
	s.counters.writes.Add(1)
	s.counters.written.Add(int64(len(p)))
	n.healLocked(off, end)
	if durably {
		if err := pwriteAll(n.fd, p, off); err != nil {
			return err
		}
		for _, c := range n.log {
			c.cut(off, end)
			c.sizeAfter = max(c.sizeAfter, end)
		}
		n.durable = max(n.durable, end)
		return nil
	}
	old, err := before(n.fd, off, end, size)
	if err != nil {
		return err
	}
	if err := pwriteAll(n.fd, p, off); err != nil {
		return err
	}
	s.noteChangeLocked(n, &change{off: off, end: end, old: old, sizeAfter: max(size, end)})
	return nil
}

// before is what a range holds, so that it can be put back.
func before(fd int, off, end, size int64) (out []seg, err error) {
	const most = 1 << 20
	for off < min(end, size) {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = end, nil
		}
		if err != nil {
			return nil, err
		}
		if data = min(data, end); data > off {
			out = append(out, seg{off: off, n: data - off})
			off = data
			continue
		}
		p := make([]byte, min(end, size)-off)
		if len(p) > most {
			p = p[:most]
		}
		n, err := preadAll(fd, p, off)
		if err != nil {
			return nil, err
		}
		out = append(out, split(off, p[:n])...)
		off += int64(n)
	}
	if off < end {
		out = append(out, seg{off: off, n: end - off}) // behind the end: zeroes, if a later change makes it longer
	}
	return out, nil
}

func (s *Store) noteChangeLocked(n *Node, c *change) {
	c.seq = s.counters.seq.Add(1)
	held := c.held()
	n.log = append(n.log, c)
	n.bytes += held
	if s.counters.unflushed.Add(held) <= s.cfg.Cache {
		return
	}
	// The cache is full: the oldest half of this file's changes go to the disk.
	for _, c := range n.log[:(len(n.log)+1)/2] {
		s.counters.unflushed.Add(-c.held())
		n.bytes -= c.held()
		n.durable = c.sizeAfter
		s.counters.evicted.Add(1)
	}
	n.log = append([]*change(nil), n.log[(len(n.log)+1)/2:]...)
}

// Truncate sets the size of a file in use.
func (s *Store) Truncate(n *Node, size int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, err := n.sizeLocked()
	if err != nil || now == size {
		return err
	}
	c := &change{off: min(now, size), end: max(now, size), sizeAfter: size}
	if c.old, err = before(n.fd, c.off, c.end, now); err != nil {
		return err
	}
	if err := unix.Ftruncate(n.fd, size); err != nil {
		return err
	}
	s.noteChangeLocked(n, c)
	return nil
}

// Allocate is fallocate on a file in use.
func (s *Store) Allocate(n *Node, mode uint32, off, length int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if mode&^(unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		return unix.EOPNOTSUPP
	}
	size, err := n.sizeLocked()
	if err != nil {
		return err
	}
	c := &change{off: off, end: off + length, sizeAfter: size}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		c.sizeAfter = max(size, off+length)
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		if c.old, err = before(n.fd, off, min(off+length, max(size, off)), size); err != nil {
			return err
		}
		n.healLocked(off, off+length)
	}
	if err := unix.Fallocate(n.fd, mode, off, length); err != nil {
		return err
	}
	s.counters.writes.Add(1)
	s.noteChangeLocked(n, c)
	return nil
}

// Seek is lseek with SEEK_DATA or SEEK_HOLE on a file in use.
func (s *Store) Seek(n *Node, off int64, whence int) (int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return unix.Seek(n.fd, off, whence)
}

// Sync makes the content of a file durable, all but what a failed flush has lost.
func (s *Store) Sync(n *Node) {
	s.counters.flushes.Add(1)
	n.mu.Lock()
	s.settleLocked(n)
	n.mu.Unlock()
	if s.cfg.Lenient {
		s.mu.Lock()
		s.finishAllLocked()
		s.mu.Unlock()
	}
}

func (s *Store) settleLocked(n *Node) {
	if n.fd < 0 {
		return
	}
	s.counters.unflushed.Add(-n.bytes)
	if n.log = settle(n.log); len(n.log) > 0 {
		n.bytes = 0
		for _, c := range n.log {
			n.bytes += c.held()
		}
		s.counters.unflushed.Add(n.bytes)
	} else {
		n.bytes = 0
	}
	if size, err := n.sizeLocked(); err == nil {
		n.durable = size
	}
}

// FailSync is a flush that fails: what it should have made durable never will be.
func (s *Store) FailSync(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.log {
		c.lost = true
	}
}

// Rot changes bytes of a file behind everybody's back.
func (s *Store) Rot(n *Node, off, length int64) error {
	if err := s.Use(n); err != nil {
		return err
	}
	defer s.Leave(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	p := make([]byte, length)
	got, err := preadAll(n.fd, p, off)
	if err != nil {
		return err
	}
	for i := range p[:got] {
		p[i] ^= 0x5a
	}
	n.rotten = append(n.rotten, seg{off: off, n: int64(got)})
	return pwriteAll(n.fd, p[:got], off)
}

// healLocked notes that what had rotted was overwritten.
func (n *Node) healLocked(off, end int64) {
	if len(n.rotten) == 0 {
		return
	}
	c := change{off: 0, end: 1<<63 - 1, old: n.rotten}
	c.cut(off, end)
	n.rotten = c.old
}

package replication

import (
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
	"hacluster/replication/spool"
)

// What members in async lack beyond a window goes to a file and comes back in time (primary/spool.go decides; spool has the format).
// Two goroutines wait for its disk, one for each direction, and nobody waits for them: a spool that hangs has writers held by the
// limit of memory, and its members dropped after the patience. They begin with the first operation that is spooled.

// SpoolConfig is where data goes that members in async lack and memory does not hold.
type SpoolConfig struct {
	Dir     string                  // a folder; empty: there is no spool
	Reserve func(total int64) int64 // of a file system of that size, what stays free for others
	Sizes   primary.SpoolSizes      // zero: primary.DefaultSpool
	wait    func()                  // before each write, in tests of a disk that hangs
}

// spooler is the spool of one tenure.
type spooler struct {
	t    *Tenure
	conf SpoolConfig
	most int64 // bytes
	goes sync.WaitGroup
	// wake has room for one, to each of the two: there is something to do, or the end.
	toWrite, toRead chan struct{}

	mu      sync.Mutex
	file    *spool.File // nil: there was nothing to write yet
	writes  []*op       // each with a reference
	reads   []*op       // each with a reference
	ended   bool
	began   bool               // the goroutines are there
	since   [2]cluster.Instant // when the call of each of the two began that has not returned; 0: there is none
	failing string             // what it said last; empty: it works
	said    string             // what was told last
	saidAt  cluster.Instant    // when
}

// newSpooler returns nil where the volume has no spool.
func newSpooler(t *Tenure) *spooler {
	conf := t.r.cfg.Spool
	if conf.Dir == "" {
		return nil
	}
	if conf.Sizes == (primary.SpoolSizes{}) {
		conf.Sizes = primary.DefaultSpool
	}
	return &spooler{t: t, conf: conf, most: MaxSpooledBound, toWrite: make(chan struct{}, 1), toRead: make(chan struct{}, 1)}
}

// sizes are for the Core: none where memory is enough for the bound.
func (s *spooler) sizes(bound primary.Bound) primary.SpoolSizes {
	if s == nil || bound.Bytes <= MaxBound {
		return primary.SpoolSizes{}
	}
	return s.conf.Sizes
}

// write has the data of o written. Its buf stays until the Core knows the outcome.
func (s *spooler) write(o *op) {
	o.refs.Add(1)
	s.put(&s.writes, o, s.toWrite)
}

func (s *spooler) read(o *op) {
	o.refs.Add(1)
	s.put(&s.reads, o, s.toRead)
}

// put is bounded by what the Core has on its way: data that counts as in memory until Spooled, and the windows.
func (s *spooler) put(to *[]*op, o *op, wake chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = append(*to, o)
	if !s.began {
		s.began = true
		s.goes.Go(s.writer)
		s.goes.Go(s.reader)
	}
	remind(wake)
}

func remind(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// take takes all that waits, perhaps nothing after a wake; false: it is over.
func (s *spooler) take(from *[]*op, wake <-chan struct{}, into []*op) ([]*op, bool) {
	for woken := false; ; woken = true {
		s.mu.Lock()
		into, ended := append(into[:0], *from...), s.ended
		clear(*from)
		*from = (*from)[:0]
		s.mu.Unlock()
		if len(into) > 0 || ended || woken {
			return into, !ended
		}
		<-wake
	}
}

// writer writes what waits, as much at a time as lies together.
func (s *spooler) writer() {
	var all []*op
	var pieces [][]byte
	var places []spool.Place
	for more := true; more; {
		all, more = s.take(&s.writes, s.toWrite, all)
		for rest := all; len(rest) > 0; {
			pieces, places = pieces[:0], places[:0]
			n := len(rest)
			if more {
				n = s.needless(rest)
			}
			if n > 0 {
				s.wrote(rest[:n], nil, nil)
				rest = rest[n:]
				continue
			}
			for _, o := range rest {
				pieces = append(pieces, o.buf.Bytes())
			}
			places, err := s.putFile(pieces, places)
			s.tell(s.t.r.node.Now(), err, keptText)
			if n = len(places); err != nil {
				n = len(rest) // the others would fail likewise; the Core tries again
			}
			s.wrote(rest[:n], places, err)
			rest = rest[n:]
		}
		clear(all)
		clear(pieces)
		if s.file != nil && more {
			s.begin(toWrite)
			_ = s.file.Trim() // what is not given back is used again
			s.end(toWrite)
		}
	}
}

// needless is how many of the first operations nobody needs any more: a disk that is slow does not write what it has no use of.
func (s *spooler) needless(ops []*op) (n int) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for n < len(ops) && s.t.core.Needless(&ops[n].Op) {
		n++
	}
	return n
}

func (s *spooler) putFile(pieces [][]byte, places []spool.Place) (_ []spool.Place, err error) {
	s.begin(toWrite)
	defer s.end(toWrite)
	if s.conf.wait != nil {
		s.conf.wait()
	}
	if s.file == nil {
		f, err := spool.Create(s.conf.Dir, spool.Limits{Bytes: s.most, Reserve: s.conf.Reserve})
		if err != nil {
			return places, err
		}
		s.mu.Lock()
		s.file = f
		s.mu.Unlock()
	}
	return s.file.Put(pieces, places)
}

// The calls that wait for the disk.
const (
	toWrite = iota
	toRead
)

// begin and end note that the disk is waited for.
func (s *spooler) begin(call int) {
	now := s.t.r.node.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since[call] = now
}

func (s *spooler) end(call int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since[call] = 0
}

// wrote tells the Core of some operations that all came to the spool, or did not.
func (s *spooler) wrote(ops []*op, places []spool.Place, err error) {
	t := s.t
	now := t.r.node.Now()
	t.mu.Lock()
	var acts *actions
	if !t.ended {
		for i, o := range ops {
			if err == nil && i < len(places) {
				o.at = places[i]
			}
			t.core.Spooled(now, &o.Op, err)
		}
		acts = t.takeLocked()
	}
	t.mu.Unlock()
	for _, o := range ops {
		o.release()
	}
	t.run(acts, worker)
}

// reader reads what members are sent next.
func (s *spooler) reader() {
	var all []*op
	for more := true; more; {
		all, more = s.take(&s.reads, s.toRead, all)
		for rest := all; len(rest) > 0; {
			n := together(rest)
			if more {
				s.readSome(rest[:n])
			} else {
				s.loaded(0, rest[:n], nil, nil)
			}
			rest = rest[n:]
		}
		clear(all)
	}
}

// readBytes is how much is read before it is sent.
const readBytes = 1 << 20

// together is how many of the first operations lie behind each other.
func together(ops []*op) int {
	n, bytes := 1, ops[0].Range.Len
	for n < min(len(ops), 256) && ops[n].at.Follows(ops[n-1].at) && bytes+ops[n].Range.Len <= readBytes {
		bytes += ops[n].Range.Len
		n++
	}
	return n
}

func (s *spooler) readSome(ops []*op) {
	bufs, pieces := make([]*blockdev.Buf, len(ops)), make([][]byte, len(ops))
	for i, o := range ops {
		bufs[i] = blockdev.NewBuf(int(o.Range.Len))
		pieces[i] = bufs[i].Bytes()
	}
	s.begin(toRead)
	err := s.file.Read(pieces, ops[0].at)
	s.end(toRead)
	bad := make([]error, len(ops))
	now := s.t.r.node.Now()
	for i, o := range ops {
		if bad[i] = err; err == nil {
			bad[i] = intact(pieces[i], o.sum)
		}
		if bad[i] != nil {
			s.tell(now, bad[i], lostText)
		}
	}
	s.loaded(now, ops, bufs, bad)
}

// loaded hands over what was read.
func (s *spooler) loaded(now cluster.Instant, ops []*op, bufs []*blockdev.Buf, bad []error) {
	t := s.t
	t.mu.Lock()
	var acts *actions
	for i, o := range ops {
		switch {
		case bufs == nil:
		case t.ended || bad[i] != nil:
			bufs[i].Free()
		default:
			o.buf = bufs[i]
		}
		if !t.ended {
			t.core.Loaded(now, &o.Op, bad[i])
		}
	}
	if !t.ended {
		acts = t.takeLocked()
	}
	t.mu.Unlock()
	for _, o := range ops {
		o.release()
	}
	t.run(acts, worker)
}

// intact compares with the checksum that was made where the write entered (R21).
func intact(p []byte, sum uint32) error {
	if got := crc32.Checksum(p, castagnoli); got != sum {
		return fmt.Errorf("its checksum is %08x, and %08x was written: the disk of the spool lost it", got, sum)
	}
	return nil
}

// What follows from a failure.
const (
	keptText = "what standbys lack stays in memory, up to %d bytes; from there on writers wait, and after the patience a standby is dropped and resynced"
	lostText = "who lacks that is dropped and resynced"
)

// tell has an operator know when the spool fails, and when it takes data again; not more than once a minute.
func (s *spooler) tell(now cluster.Instant, err error, follows string) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	s.mu.Lock()
	s.failing = text
	said := s.said != text && (err == nil || s.saidAt == 0 || now.Sub(s.saidAt) >= time.Minute)
	if said {
		s.said = text
		if err != nil {
			s.saidAt = now
		}
	}
	s.mu.Unlock()
	switch {
	case !said:
	case err == nil:
		s.t.r.event("spool works again", fmt.Sprintf("%s: data that standbys lack goes to %s again", s.t.r.cfg.Node, s.conf.Dir))
	default:
		if follows == keptText {
			follows = fmt.Sprintf(keptText, s.conf.Sizes.Most)
		}
		s.t.r.log.Warn("the spool does not work", "dir", s.conf.Dir, "error", err)
		s.t.r.event("spool failed", fmt.Sprintf("%s: %v: %s. %s", s.t.r.cfg.Node, err, follows, cure(err)))
	}
}

func cure(err error) string {
	if errors.Is(err, spool.ErrFull) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return "Give its file system more space, or name another folder (async { spool = ... })"
	}
	return "Look at its disk, or name a folder on another one (async { spool = ... })"
}

// reason is why it takes nothing; failed: the Core says so. What nobody has asked it for since it failed is no reason.
func (s *spooler) reason(failed bool) string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !failed && s.since == [2]cluster.Instant{} {
		return ""
	}
	return s.failing
}

// hangs tells of a call that does not return.
func (s *spooler) hangs(now cluster.Instant, limit time.Duration) {
	s.mu.Lock()
	hung := false
	for _, since := range s.since {
		hung = hung || since != 0 && now.Sub(since) >= limit
	}
	s.mu.Unlock()
	if hung {
		s.tell(now, fmt.Errorf("the disk of the spool in %s has not answered for more than %v", s.conf.Dir, limit), keptText)
	}
}

// free gives the place of what nobody needs any more back, and with the last one the file's room.
func (s *spooler) free(at spool.Place) {
	if s.file.Free(at) {
		remind(s.toWrite)
	}
}

// hungAfter is how long a call may take before an operator is told of it.
const hungAfter = 10 * time.Second

// endWait is how long the end of a tenure waits for the disk of its spool.
const endWait = 2 * time.Second

// close ends the spool with its tenure. A disk that hangs keeps its goroutine, and the file until then: it has no name, and nobody
// reads it.
func (s *spooler) close() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	remind(s.toWrite)
	remind(s.toRead)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.goes.Wait()
		if s.file != nil {
			_ = s.file.Close()
		}
	}()
	select {
	case <-gone:
	case <-time.After(endWait):
		s.t.r.log.Warn("the disk of the spool hangs: it is left to itself", "dir", s.conf.Dir)
	}
}

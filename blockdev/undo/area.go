package undo

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
	"hacluster/blockdev/failpoint"
)

// Config says where an area is and how much it may take.
type Config struct {
	Binding
	Place Place
	// Limit is how many bytes the file may have; 0: as much as logging the whole volume takes.
	Limit int64
}

// Area is a replica's undo area: none, or the one that is live. Log may be called concurrently, and so may what only
// looks; Begin, Each, Discard and Close are called by one goroutine at a time, Begin and Each while nothing is logged.
type Area struct {
	cfg Config

	mu     sync.Mutex // guards what follows; never held while a disk is waited for
	live   *live
	damage string // why what was there leads nowhere; empty: nothing was, or it is whole
}

// live is an area that exists.
type live struct {
	store  Store
	head   *header
	src    Source
	kick   chan struct{}  // to commit; room for one; closed by stop
	ended  chan struct{}  // closed when commit has returned
	queued *bitmap.Bitmap // blocks that are logged or in a group that is made or being made; commit's own
	last   record         // the last one that was made; likewise
	limit  int64
	end    int64 // where the next group goes; write's own once that runs
	closed bool  // under mu, as what follows

	mu      sync.Mutex
	logged  *bitmap.Bitmap // blocks whose old content is durable, or written if relaxed
	queue   []item
	failed  error
	relaxed bool  // groups are written, and flushed with Close only
	taken   int64 // where the last group ended that counts
}

// item is one range that waits for its old content to be durable.
type item struct {
	at  blockdev.Range
	old Old
	w   Waiter
}

// Old is the content that whole blocks hold until they are overwritten, as the caller has read it; the zero Old: nobody has.
type Old struct {
	At  blockdev.Range
	Buf *blockdev.Buf // of At, from its first byte on
}

// covers reports whether it is known what all of a range holds.
func (o *Old) covers(at blockdev.Range) bool {
	return o.Buf != nil && o.At.Off <= at.Off && at.End() <= o.At.End()
}

func (o *Old) of(at blockdev.Range) []byte { return o.Buf.Bytes()[at.Off-o.At.Off : at.End()-o.At.Off] }

func (o *Old) free() {
	if o.Buf != nil {
		o.Buf.Free()
	}
}

// Open reads back what is in the place. src is where old content is read from now on. Damage says that what was there
// leads nowhere; then it is left as it is until Discard. When there is nothing, that is durable when it returns.
func Open(cfg Config, src Source) (*Area, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open undo area: %w", err)
	}
	a := &Area{cfg: cfg}
	l, err := open(&cfg, src)
	switch {
	case errors.Is(err, ErrNone):
		// A process that died while it removed one may have had no time to make that durable: after a power cut the file
		// would be there again, beside blocks that were overwritten without it.
		if err := cfg.Place.Remove(); err != nil {
			return nil, fmt.Errorf("open undo area: have it gone that there is none: %w", err)
		}
	case errors.Is(err, ErrCorrupt):
		a.damage = err.Error()
	case err != nil:
		return nil, fmt.Errorf("open undo area: %w", err)
	default:
		a.live = l
	}
	return a, nil
}

func open(cfg *Config, src Source) (*live, error) {
	s, err := cfg.Place.Open()
	if err != nil {
		return nil, err
	}
	l, err := load(cfg, s, src)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return l, nil
}

// load reads all of an area, and cuts off what its last group did not finish: what comes next must not be followed by
// remains of it.
func load(cfg *Config, s Store, src Source) (*live, error) {
	size, err := s.Size()
	if err != nil {
		return nil, err
	}
	p := make([]byte, min(size, headerSize))
	if err := read(s, p, 0); err != nil {
		return nil, err
	}
	h, err := decodeHeader(p)
	if err != nil {
		return nil, err
	}
	if err := cfg.check(h); err != nil {
		return nil, err
	}
	l := newLive(cfg, s, h, src)
	l.end, l.last, err = scan(s, h, func(r *record, _ []byte) error {
		l.set(l.logged, r.at)
		l.set(l.queued, r.at)
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.taken = l.end
	if l.end < size {
		err = s.Truncate(l.end)
	}
	if err == nil {
		err = rewriteLast(s, l.end)
	}
	if err = errors.Join(err, s.Flush()); err != nil { // what only the operating system has is not logged yet
		return nil, fmt.Errorf("make durable what is logged: %w", err)
	}
	go l.commit()
	return l, nil
}

// rewriteLast writes what may be the last group once more. Its flush may have failed before the process died: then it is in
// the page cache, counts as clean there, and no flush writes it. No group came behind one whose flush failed.
func rewriteLast(s Store, end int64) error {
	p := blockdev.NewBuf(int(min(MaxRecord, end)))
	defer p.Free()
	for off := max(headerSize, end-lastBytes); off < end; off += MaxRecord {
		part := p.Bytes()[:min(MaxRecord, end-off)]
		if err := read(s, part, off); err != nil {
			return err
		}
		if _, err := s.WriteAt(part, off); err != nil {
			return err
		}
	}
	return nil
}

func newLive(cfg *Config, s Store, h *header, src Source) *live {
	limit := cfg.Limit
	if limit == 0 {
		limit = headerSize + h.size/blockdev.BlockSize*(recordSize+blockdev.BlockSize)
	}
	return &live{store: s, head: h, src: src, limit: limit, end: headerSize, taken: headerSize, kick: make(chan struct{}, 1), ended: make(chan struct{}),
		logged: bitmap.New((h.size + blockdev.BlockSize - 1) / blockdev.BlockSize), queued: bitmap.New((h.size + blockdev.BlockSize - 1) / blockdev.BlockSize)}
}

func (l *live) set(in *bitmap.Bitmap, at blockdev.Range) {
	in.Set(at.Off/blockdev.BlockSize, (at.End()+blockdev.BlockSize-1)/blockdev.BlockSize)
}

// Begin makes an area that leads back to the content of this moment, which must be durable on the backing. epoch is the
// one that the superblock has.
func (a *Area) Begin(point Point, epoch uint64, src Source) error {
	if a.Live() {
		return errors.New("begin undo area: there is one that is live")
	}
	var random [8]byte
	rand.Read(random[:]) // never fails
	c := &a.cfg
	h := &header{tag: binary.LittleEndian.Uint64(random[:]), size: c.Size, cluster: c.Cluster, volume: c.Volume, node: c.Node,
		attachment: c.Attachment, point: point, began: epoch}
	failpoint.Hit(failpoint.UndoMake)
	s, err := c.Place.Create(h.encode())
	if err != nil {
		return fmt.Errorf("begin undo area: %w", err)
	}
	failpoint.Hit(failpoint.UndoMade)
	l := newLive(c, s, h, src)
	go l.commit()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live, a.damage = l, ""
	return nil
}

func (a *Area) now() *live {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.live
}

// Live reports whether there is a way back.
func (a *Area) Live() bool { return a.now() != nil }

// Damage says why an area that was found leads nowhere; empty: none was, or it does.
func (a *Area) Damage() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.damage
}

// Point is what the live area leads back to, and bytes how much of the volume it holds the old content of.
func (a *Area) Point() (p Point, bytes int64, ok bool) {
	l := a.now()
	if l == nil {
		return p, 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head.point, min(l.logged.Count()*blockdev.BlockSize, l.head.size), true
}

// Log makes the old content of the blocks of a range durable, as far as it is not. ready: it is, so the blocks may be
// overwritten at once; w is not used. Otherwise w is told.
func (a *Area) Log(at blockdev.Range, w Waiter) (ready bool, err error) {
	return a.LogOld(at, Old{}, w)
}

// LogOld is Log for blocks that the caller may know the content of: what it knows is not read. It takes a reference to the
// memory of old for as long as that is needed.
func (a *Area) LogOld(at blockdev.Range, old Old, w Waiter) (ready bool, err error) {
	l := a.now()
	if l == nil {
		return false, ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.covers(at):
		return true, nil
	case l.failed != nil:
		return false, l.failed
	}
	if old.Buf != nil {
		old.Buf.Ref()
	}
	l.queue = append(l.queue, item{at, old, w})
	select {
	case l.kick <- struct{}{}:
	default:
	}
	return false, nil
}

// Relax has what is logged from now on written, and made durable no sooner than by Close: after a power cut there may be
// less of it than was overwritten, and a damaged rest.
func (a *Area) Relax() {
	if l := a.now(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.relaxed = true
	}
}

// Taken is where the file ends as far as what it holds counts, in bytes; 0: no area is live.
func (a *Area) Taken() int64 {
	l := a.now()
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken
}

// GiveUp has nothing logged any more: who waits is told why, as soon as what is being read or written has returned.
func (a *Area) GiveUp(why error) {
	if l := a.now(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.failed == nil {
			l.failed = fmt.Errorf("%w: %w", ErrFailed, why)
		}
	}
}

// Failed is why nothing is logged any more; nil: it is, or no area is live.
func (a *Area) Failed() error {
	if l := a.now(); l != nil {
		return l.failure()
	}
	return nil
}

// Reopen reads a live area back, so that it goes on where a failure ended it. What was not durable then is cut off first: a
// flush that succeeds after one that failed proves nothing. src as for Open.
func (a *Area) Reopen(src Source) error {
	l := a.now()
	if l == nil {
		return ErrClosed
	}
	l.stop()
	if err := errors.Join(l.store.Truncate(l.end), l.store.Flush()); err != nil {
		return fmt.Errorf("cut the undo area off where it failed: %w", err)
	}
	again, err := open(&a.cfg, src)
	if err != nil {
		return fmt.Errorf("open undo area: %w", err) // the failed one stays, to be tried again
	}
	a.mu.Lock()
	a.live = again
	a.mu.Unlock()
	if err := l.store.Close(); err != nil {
		return fmt.Errorf("close undo area: %w", err)
	}
	return nil
}

// covers reports whether all blocks of a range are logged.
func (l *live) covers(at blockdev.Range) bool {
	from, to := at.Off/blockdev.BlockSize, (at.End()+blockdev.BlockSize-1)/blockdev.BlockSize
	start, end, ok := l.logged.NextRange(from, to-from)
	return ok && start == from && end == to
}

// Each tells of all that is held, in the order in which it was logged: writing it back, and making that durable, leads to
// the point. Content is valid until fn returns; nil: zeroes, of any length. ErrCorrupt: the rest is lost.
func (a *Area) Each(fn func(at blockdev.Range, content []byte) error) error {
	l := a.now()
	if l == nil {
		return ErrClosed
	}
	end, _, err := scan(l.store, l.head, func(r *record, content []byte) error { return fn(r.at, content) })
	if err == nil && end != l.end {
		err = fmt.Errorf("%w: it ends at byte %d, %d were written", ErrCorrupt, end, l.end)
	}
	return err
}

// Discard ends the area and has its file gone durably, also one that is damaged. Who still waits is told ErrClosed first.
// When it fails, what is on stable storage is unknown.
func (a *Area) Discard() error {
	err := a.Close()
	failpoint.Hit(failpoint.UndoRemove)
	defer failpoint.Hit(failpoint.UndoRemoved)
	if err = errors.Join(a.cfg.Place.Remove(), err); err != nil {
		return fmt.Errorf("remove undo area: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.damage = ""
	return nil
}

// Close leaves the file as it is: what is durable is there for the next Open.
func (a *Area) Close() error {
	a.mu.Lock()
	l := a.live
	a.live = nil
	a.mu.Unlock()
	if l == nil {
		return nil
	}
	l.stop()
	var err error
	if l.relaxed && errors.Is(l.failed, ErrClosed) { // nobody changes them any more
		err = l.store.Flush()
	}
	return errors.Join(err, l.store.Close())
}

// stop lets nobody wait any more and ends commit.
func (l *live) stop() {
	l.mu.Lock()
	if l.failed == nil {
		l.failed = ErrClosed
	}
	if !l.closed {
		l.closed = true
		close(l.kick)
	}
	l.mu.Unlock()
	<-l.ended
}

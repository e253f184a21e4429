package rescue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/undo"
)

// Config says whose images they are and how much each may take.
type Config struct {
	undo.Binding
	Room Room
	// Limit is how many bytes the file of an image may have; 0: as much as logging the whole volume takes.
	Limit int64
	// Patience is how long who writes waits for an image that is closed. Default 200 ms: less than it takes to drop a
	// member that does not answer.
	Patience time.Duration
	// Ended is told that an image is no whole volume any more, and why. It must not wait. nil: nobody is.
	Ended func(id, why string)
	// Left is told of what lies among the images, is none, and could not be removed. nil: nobody is.
	Left func(id string, err error)
	// Unnoted is told why what outlives the images could not be read or noted. nil: nobody is.
	Unnoted func(err error)
}

// Shelf has the images of one replica. Keep, List, Read and Remove may be called concurrently; Begin, Finish, CloseEarly, Drop
// and Stop by one goroutine at a time.
type Shelf struct {
	cfg     Config
	src     undo.Source
	keeping atomic.Pointer[[]*image] // those that Keep has something to do for; nil: none

	// Of who calls Begin, Finish and Drop:
	newer error // why the ledger is not written to; nil: it is
	spare bool  // nothing bears its last number yet

	mu   sync.Mutex // guards what follows; never held while a disk is waited for
	live *image     // of the resync that has not ended; nil: none
	kept []*image   // oldest first
	// ledger is as it is on stable storage. Who calls Begin, Finish and Drop reads it without mu, for nobody else writes it.
	ledger ledger
}

// image is one of them.
type image struct {
	id   string
	area *undo.Area // while it takes old content; nil: it does not any more
	head undo.Head

	// Under the Shelf's mu:
	label   label
	closed  bool
	claims  bool // the label on stable storage may say that the promise holds, and it does not
	removed bool // or being removed
	foreign bool // of another volume: what it holds is never read
}

// Open finds the images of a replica. inPieces: its superblock says that a resync has not ended.
func Open(cfg Config, src undo.Source, inPieces bool) (*Shelf, error) {
	if cfg.Patience == 0 {
		cfg.Patience = 200 * time.Millisecond
	}
	s := &Shelf{cfg: cfg, src: src}
	s.readLedger()
	ids, err := cfg.Room.IDs()
	if err != nil {
		return nil, fmt.Errorf("look for rescue images: %w", err)
	}
	for _, id := range ids {
		if err := s.find(id, inPieces); err != nil {
			s.close()
			return nil, fmt.Errorf("rescue image %s: %w", id, err)
		}
	}
	slices.SortFunc(s.kept, func(a, b *image) int {
		if a.label.closedMillis != b.label.closedMillis {
			return int(min(max(a.label.closedMillis-b.label.closedMillis, -1), 1))
		}
		return strings.Compare(a.id, b.id)
	})
	for _, i := range s.kept {
		cfg.Room.Closed(i.id)
	}
	s.publishLocked()
	return s, nil
}

func (s *Shelf) close() {
	for _, i := range append(s.kept, s.live) {
		if i != nil && i.area != nil {
			_ = i.area.Close() // what is kept is not promised: the label says so
		}
	}
}

func (s *Shelf) area(id string) undo.Config {
	return undo.Config{Binding: s.cfg.Binding, Place: s.cfg.Room.Image(id), Limit: s.cfg.Limit}
}

func (s *Shelf) headOf(id string) (h undo.Head, err error) {
	r, err := undo.NewReader(s.cfg.Room.Image(id), undo.Start, undo.Start)
	if err != nil {
		return h, err
	}
	h = r.Head()
	if h.Cluster != s.cfg.Cluster || h.Volume != s.cfg.Volume || h.Size != s.cfg.Size {
		err = fmt.Errorf("%w: cluster %x, volume %x, %d bytes; this one is of cluster %x, volume %x, %d bytes", ErrForeign,
			h.Cluster, h.Volume, h.Size, s.cfg.Cluster, s.cfg.Volume, s.cfg.Size)
	}
	return h, errors.Join(err, r.Close())
}

// Live is the area of the resync that has not ended, and the epoch in which it was begun; nil: it has none here.
func (s *Shelf) Live() (a *undo.Area, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return nil, 0
	}
	return s.live.area, s.live.head.Epoch
}

// Begin makes an image of the content of this moment, which must be durable on the backing. epoch is the one that the
// superblock has. When it fails nothing is left of it.
func (s *Shelf) Begin(point undo.Point, epoch uint64) error {
	s.mu.Lock()
	live, n := s.live, len(s.kept)
	s.mu.Unlock()
	switch {
	case live != nil:
		return ErrLive
	case n >= MaxImages:
		return fmt.Errorf("%w: %d are the limit", ErrTooMany, MaxImages)
	}
	id, err := s.name(epoch)
	if err != nil {
		return err
	}
	i := &image{id: id}
	a, err := s.begin(id, point, epoch)
	if err == nil {
		i.head, err = s.headOf(id)
	}
	if err != nil {
		if a != nil {
			err = errors.Join(err, a.Close())
		}
		return errors.Join(err, s.cfg.Room.Remove(id))
	}
	i.area, s.spare = a, false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = i
	return nil
}

func (s *Shelf) begin(id string, point undo.Point, epoch uint64) (*undo.Area, error) {
	failpoint.Hit(failpoint.RescueMake)
	defer failpoint.Hit(failpoint.RescueMade)
	if err := s.cfg.Room.Make(id); err != nil {
		return nil, err
	}
	c := s.area(id)
	c.Epoch = max(c.Epoch, epoch)
	a, err := undo.Open(c, s.src)
	if err != nil {
		return nil, err
	}
	return a, a.Begin(point, epoch, s.src)
}

func (s *Shelf) findLocked(id string) *image {
	if s.live != nil && s.live.id == id {
		return s.live
	}
	for _, i := range s.kept {
		if i.id == id {
			return i
		}
	}
	return nil
}

// Finish closes the image of a resync that has ended, as the superblock says; it goes on as a whole volume. One that holds
// nothing is removed. Nothing was written to the replica since the resync ended. ok: there is one.
func (s *Shelf) Finish(now time.Time) (info Info, err error) {
	s.mu.Lock()
	i := s.live
	s.mu.Unlock()
	if i == nil {
		return info, nil
	}
	_, bytes, whole := i.area.Point()
	if whole && bytes == 0 { // perhaps it was only made, before a crash: nothing was overwritten, and nothing is kept
		return info, s.Drop()
	}
	if whole {
		failpoint.Hit(failpoint.RescueKeep)
		s.keeps(i.head.Epoch)
	}
	l := label{closedMillis: now.UnixMilli(), bytes: bytes, end: i.area.Taken(), base: baseRunning}
	if !whole { // it is damaged; what can be read of it is there
		l.base, l.why = baseEnded, i.area.Damage()
	}
	failpoint.Hit(failpoint.RescueLabel)
	if err := s.cfg.Room.SetLabel(i.id, l.encode()); err != nil {
		l.base, l.why = baseEnded, fmt.Sprintf("its label could not be written: %v", err)
		if err := s.disclaim(i.id, &l); err != nil { // nothing would tell it from that of a resync that goes on
			return info, fmt.Errorf("label rescue image %s: %w", i.id, err)
		}
		if s.cfg.Ended != nil {
			s.cfg.Ended(i.id, l.why)
		}
	}
	failpoint.Hit(failpoint.RescueLabelled)
	s.cfg.Room.Closed(i.id)
	i.area.Relax()
	s.mu.Lock()
	defer s.mu.Unlock()
	i.label, i.closed = l, true
	s.live, s.kept = nil, append(s.kept, i)
	s.publishLocked()
	return s.infoLocked(i), nil
}

// Drop removes the image of the resync that has not ended: the way back was taken.
func (s *Shelf) Drop() error {
	s.mu.Lock()
	i := s.live
	s.mu.Unlock()
	if i == nil {
		return nil
	}
	if err := i.area.Discard(); err != nil {
		return err
	}
	if err := s.cfg.Room.Remove(i.id); err != nil && !errors.Is(err, ErrOthers) {
		return fmt.Errorf("remove rescue image %s: %w", i.id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = nil
	return nil
}

// Stop ends the shelf in order: nothing is written to the replica any more, and what was is in the images. The image of a
// resync that has not ended stays as it is.
func (s *Shelf) Stop() (err error) {
	s.mu.Lock()
	live, kept := s.live, slices.Clone(s.kept)
	s.keeping.Store(nil)
	s.mu.Unlock()
	if live != nil {
		err = live.area.Close()
	}
	for _, i := range kept {
		err = errors.Join(err, s.stop(i))
	}
	return err
}

func (s *Shelf) stop(i *image) error {
	if i.area == nil {
		if i.claims && !s.elsewhere(i) { // it could not be told before
			return s.disclaim(i.id, &i.label)
		}
		return nil
	}
	err := i.area.Close()
	s.mu.Lock()
	switch {
	case i.removed:
		s.mu.Unlock()
		return err
	case i.label.base != baseRunning:
	case err != nil:
		i.label.base, i.label.why = baseEnded, err.Error()
	default:
		i.label.base = baseStopped
	}
	p := i.label.encode()
	s.mu.Unlock()
	return errors.Join(err, s.cfg.Room.SetLabel(i.id, p))
}

// List tells of the images, oldest first, the one of the resync that has not ended last.
func (s *Shelf) List() (all []Info) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.kept {
		all = append(all, s.infoLocked(i))
	}
	if s.live != nil {
		all = append(all, s.infoLocked(s.live))
	}
	return all
}

func (s *Shelf) infoLocked(i *image) Info {
	out := Info{ID: i.id, Epoch: i.head.Epoch, Point: i.head.Point, Bytes: i.label.bytes, File: i.label.end, Why: i.label.shown()}
	if i.closed {
		out.Closed, out.Whole = time.UnixMilli(i.label.closedMillis), i.label.base == baseRunning
		out.Complete = i.label.base != basePart && i.label.end > 0
	} else {
		_, out.Bytes, _ = i.area.Point()
		out.Why = i.area.Damage()
		out.Complete = out.Why == ""
	}
	if i.area != nil {
		out.File = max(out.File, i.area.Taken())
	}
	return out
}

// Remove deletes an image for good.
func (s *Shelf) Remove(id string) error {
	s.mu.Lock()
	i := s.findLocked(id)
	switch {
	case i == nil:
		s.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrNone, id)
	case !i.closed:
		s.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrLive, id)
	}
	i.removed = true
	s.publishLocked()
	s.mu.Unlock()
	var err error
	if i.area != nil {
		err = i.area.Close()
	}
	failpoint.Hit(failpoint.RescueRemove)
	err = errors.Join(s.cfg.Room.Remove(id), err)
	if err != nil && !errors.Is(err, ErrOthers) {
		return fmt.Errorf("remove rescue image %s: %w", id, err)
	}
	failpoint.Hit(failpoint.RescueRemoved)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.DeleteFunc(s.kept, func(k *image) bool { return k == i })
	if err != nil {
		return fmt.Errorf("rescue image %s is deleted: %w", id, err)
	}
	return nil
}

// publishLocked tells Keep for which images it has something to do.
func (s *Shelf) publishLocked() {
	var all []*image
	for _, i := range s.kept {
		if i.label.base == baseRunning && !i.removed {
			all = append(all, i)
		}
	}
	if all == nil {
		s.keeping.Store(nil)
		return
	}
	s.keeping.Store(&all)
}

func noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, blockdev.ErrNoSpace) {
		return fmt.Errorf("%w: %w", undo.ErrNoRoom, err)
	}
	return err
}

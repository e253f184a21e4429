package marks

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
)

// File is an open map. Its methods may be called concurrently; Mark and Clear never wait for a disk.
type File struct {
	store  Store
	damage []string
	size   int64
	region int64
	shift  uint // region is 1<<shift
	// state holds for each region the slots that are durably marked (low half) and those that are wanted (high half).
	// Changed under mu, read without.
	state []atomic.Uint32

	kick   chan struct{} // to commit: something waits; room for one: a reminder, not a count
	ended  chan struct{} // closed by commit when it returns
	began  atomic.Int64  // when the operation on the store that is outstanding began, since opened; 0: none is
	opened time.Time
	// writing holds one token: who has it may write. A channel, for it is held across I/O.
	writing chan struct{}

	mu      sync.Mutex
	head    header      // what was last made durable
	before  Incarnation // in which it was kept before it was opened
	first   int         // the copy of the header that is written first
	failed  error       // set by a failed write or flush; final until Revive
	closing bool
	marked  int64 // regions with anything wanted
	next    group // gathers
	dirty   []bool
	changed []int64 // pages that are dirty
	givenUp Slots   // slots that were given up in this process; who has the writing token owns it
}

// group is what one write and one flush make durable together.
type group struct {
	marks   []mark
	waiters []Waiter
}

type mark struct {
	region int64
	slots  Slots
}

// Waiter is told when its Mark is durable, or why it never will be. It is called from the goroutine that writes the
// groups, once, and must not block: the next group waits for it.
type Waiter interface{ Marked(err error) }

// Open reads the map that s holds and binds it to this process: the incarnation in b is stored, which also makes whole
// what a crash left of the header. It owns s when it succeeds.
func Open(s Store, b Binding) (*File, error) {
	if err := b.validate(); err != nil {
		return nil, fmt.Errorf("open map of marks: %w", err)
	}
	f, err := load(s, &b)
	if err != nil {
		return nil, fmt.Errorf("open map of marks: %w", err)
	}
	if why := b.doubt(f.head.incarnation); why != "" { // in one with the incarnation: a crash must not leave the doubt behind
		f.damage = append(f.damage, why+": all blocks may differ")
		for i := range f.head.slots {
			f.head.slots[i].Everything = f.head.slots[i].Peer != ""
		}
	}
	f.before, f.head.incarnation = f.head.incarnation, b.Incarnation
	f.head.generation++
	if err := writeHeaders(s, &f.head, f.first); err != nil {
		return nil, fmt.Errorf("open map of marks: %w", err)
	}
	go f.commit()
	return f, nil
}

// Peek is the size in bytes of the volume that the map at path is of, and the peers that have a slot in it, whoever's it is. Nothing is
// written; it may be open.
func Peek(path string) (size int64, peers []Peer, err error) {
	s, err := OpenPath(path)
	if err != nil {
		return 0, nil, err
	}
	defer s.Close()
	var heads [tableAt]byte
	h, _, err := loadHeader(s, &heads)
	if err != nil {
		return 0, nil, fmt.Errorf("read map of marks %s: %w", path, err)
	}
	for _, slot := range h.slots {
		if slot.Peer != "" {
			peers = append(peers, Peer{slot.Peer, slot.Replica})
		}
	}
	return h.size, peers, nil
}

func loadHeader(s Store, heads *[tableAt]byte) (h *header, damage, err error) {
	if err := readFull(s, heads[:], 0); err != nil {
		return nil, nil, err
	}
	return chooseHeader(heads[:headerSize], heads[headerSize:])
}

func load(s Store, b *Binding) (*File, error) {
	var heads [tableAt]byte
	h, damage, err := loadHeader(s, &heads)
	if err != nil {
		return nil, err
	}
	if err := b.check(h); err != nil {
		return nil, err
	}
	n := ceil(h.size, h.region)
	f := &File{store: s, size: h.size, region: h.region, shift: uint(bits.TrailingZeros64(uint64(h.region))), head: *h, state: make([]atomic.Uint32, n), dirty: make([]bool, pages(n)),
		kick: make(chan struct{}, 1), ended: make(chan struct{}), writing: make(chan struct{}, 1), opened: time.Now()}
	if h1, err := decodeHeader(heads[headerSize:]); err != nil || h1.generation < h.generation {
		f.first = 1 // what is better is written last
	}
	if damage != nil {
		f.damage = append(f.damage, fmt.Sprintf("%v: written anew from the other, which holds the same", damage))
	}
	return f, f.loadCells()
}

// readFull reads what there is; what a short store lacks is zero, which no check takes for right.
func readFull(s Store, p []byte, off int64) error {
	n := min(max(s.Size()-off, 0), int64(len(p)))
	if n == 0 {
		return nil
	}
	got, err := s.ReadAt(p[:n], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(p[got:])
	return nil
}

// loadCells reads the table. A cell that is damaged, or cannot be read, marks its regions for every slot (R16).
func (f *File) loadCells() error {
	buf := make([]byte, 64*pageSize)
	bad, whole := 0, int64(len(f.dirty))*pageSize
	for at := int64(0); at < whole; at += int64(len(buf)) {
		p := buf[:min(int64(len(buf)), whole-at)]
		clear(p)
		if err := readFull(f.store, p, tableAt+at); err != nil {
			f.damage = append(f.damage, fmt.Sprintf("cells at %d cannot be read: %v", tableAt+at, err))
			clear(p)
		}
		for c := 0; c < len(p); c += cellSize {
			if err := f.loadCell(p[c:][:cellSize], (at+int64(c))/cellSize); err != nil {
				if bad++; bad <= 8 {
					f.damage = append(f.damage, fmt.Sprintf("cell %d: %v: its regions may differ", (at+int64(c))/cellSize, err))
				}
			}
		}
	}
	if bad > 8 {
		f.damage = append(f.damage, fmt.Sprintf("%d cells are damaged in all", bad))
	}
	return nil
}

func (f *File) loadCell(p []byte, index int64) error {
	err := checkCell(p, uint32(index), f.head.tag)
	used := f.head.used()
	for i := range cellRegions {
		r := index*cellRegions + int64(i)
		if r >= int64(len(f.state)) {
			break
		}
		s := mask(p, i) & used
		if err != nil {
			s = used
		}
		if s != 0 {
			f.state[r].Store(uint32(s) | uint32(s)<<16)
			f.marked++
		}
	}
	if err != nil {
		f.soilLocked(index / pageCells) // nobody else knows of f yet
	}
	return err
}

func (h *header) used() (s Slots) {
	for i := range h.slots {
		if h.slots[i].Peer != "" {
			s |= Of(i)
		}
	}
	return s
}

// Damage says what Open found damaged or doubtful and took for "may differ", for the log; empty when all was well.
func (f *File) Damage() []string { return f.damage }

// RegionSize is the unit of marks in bytes.
func (f *File) RegionSize() int64 { return f.region }

// Regions is the number of regions of the volume.
func (f *File) Regions() int64 { return int64(len(f.state)) }

// Hot is how many regions are marked for anybody.
func (f *File) Hot() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.marked
}

// Marked reports for which slots a region is marked, durably or about to be.
func (f *File) Marked(region int64) Slots { return Slots(f.state[region].Load() >> 16) }

// Durable reports for which slots a region is marked on stable storage.
func (f *File) Durable(region int64) Slots { return Slots(f.state[region].Load()) }

// Each calls fn for each run of regions that are marked for slot, as byte ranges in order, until fn returns false; for
// one whole range when everything may differ.
func (f *File) Each(slot int, fn func(blockdev.Range) bool) {
	if s := f.Slots()[slot]; s.Everything {
		fn(blockdev.Range{Len: f.size})
		return
	}
	for r := int64(0); r < f.Regions(); r++ {
		first := r
		for r < f.Regions() && f.Marked(r)&Of(slot) != 0 {
			r++
		}
		if r > first && !fn(f.bytes(first, r)) {
			return
		}
	}
}

func (f *File) bytes(first, end int64) blockdev.Range {
	off := first * f.region
	return blockdev.Range{Off: off, Len: min(end*f.region, f.size) - off}
}

// Outstanding is for how long the operation on the store that is under way has been, 0 when none is. One beyond the
// caller's deadline counts as failed and is never abandoned (R26).
func (f *File) Outstanding() time.Duration {
	if began := f.began.Load(); began != 0 {
		return time.Since(f.opened) - time.Duration(began)
	}
	return 0
}

// watched runs one operation on the store under the eye of Outstanding. The caller has the writing token.
func (f *File) watched(do func() error) error {
	f.began.Store(max(int64(time.Since(f.opened)), 1))
	defer f.began.Store(0)
	return do()
}

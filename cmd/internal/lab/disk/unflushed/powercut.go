package unflushed

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"
)

// Mode says what a power cut does to what was not durable.
type Mode string

const (
	// Drop loses all of it.
	Drop Mode = "drop"
	// Random chooses for each sector any of the contents that it had since it was durable, and loses names from some
	// change on.
	Random Mode = "random"
	// Torn chooses one moment: what came before it survives, the write of that moment survives in its first sectors
	// only, what came after is lost.
	Torn Mode = "torn"
)

// SectorSize is what a disk writes wholly or not at all.
const SectorSize = 512

// Cut is what a power cut did.
type Cut struct {
	Unflushed  int   // changes of content that could have been lost
	LostBytes  int64 // taken back; the same byte counts once for each change of it
	LostWrites int   // changes of which something was taken back
	Names      int   // changes of names that could have been lost
	LostNames  int
}

// PowerCut does what the loss of power does. Nobody may have a file open. The same seed on the same history does the
// same.
func (s *Store) PowerCut(mode Mode, seed uint64) (cut Cut, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, err := s.unflushedLocked()
	if err != nil {
		return cut, err
	}
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	moment := s.momentLocked(mode, files, rng)
	for _, n := range files {
		if err := n.takeBack(mode, moment, rng, &cut); err != nil {
			return cut, fmt.Errorf("take back what was not flushed to %s: %w", within(n), err)
		}
		s.counters.unflushed.Add(-n.bytes)
		n.log, n.bytes = nil, 0
		n.restLocked()
	}
	s.cutNamesLocked(mode, moment, rng, &cut)
	return cut, nil
}

// unflushedLocked lists the files with something to lose, in the order of their oldest change. Since nobody has a file
// open, and opening one takes the mutex of the store, nothing changes in them meanwhile.
func (s *Store) unflushedLocked() (files []*Node, err error) {
	for _, n := range s.nodes {
		n.mu.Lock()
		used := n.users > 0
		n.mu.Unlock()
		if used {
			return nil, fmt.Errorf("%s is open: stop who uses it first", within(n))
		}
		if len(n.log) > 0 {
			files = append(files, n)
		}
	}
	slices.SortFunc(files, func(a, b *Node) int { return cmp.Compare(a.log[0].seq, b.log[0].seq) })
	return files, nil
}

// moment is when a torn cut happens.
type moment struct {
	seq  uint64
	keep float64 // part of the write of that moment that survives
}

func (s *Store) momentLocked(mode Mode, files []*Node, rng *rand.Rand) moment {
	if mode != Torn {
		return moment{}
	}
	all := map[uint64]bool{}
	for _, n := range files {
		for _, c := range n.log {
			all[c.seq] = true
		}
	}
	for _, r := range s.journal {
		all[r.seq] = true
	}
	if len(all) == 0 {
		return moment{}
	}
	seqs := slices.Sorted(maps.Keys(all))
	return moment{seq: seqs[rng.IntN(len(seqs))], keep: rng.Float64()}
}

// takeBack restores a file.
func (n *Node) takeBack(mode Mode, at moment, rng *rand.Rand, cut *Cut) error {
	cut.Unflushed += len(n.log)
	size := n.durable
	switch mode {
	case Drop:
		for _, c := range slices.Backward(n.log) {
			if err := n.restore(c.old, cut); err != nil {
				return err
			}
			cut.LostWrites++
		}
	case Torn:
		var err error
		if size, err = n.tear(at, cut); err != nil {
			return err
		}
	case Random:
		now, err := n.sizeLocked()
		if err != nil {
			return err
		}
		if rng.IntN(2) == 0 {
			size = now
		}
		if err := n.shuffle(rng, cut); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a power cut is drop, random or torn, not %q", mode)
	}
	return unix.Ftruncate(n.fd, size)
}

// tear takes back what came after the moment, and the end of the write of that moment. It returns the size.
func (n *Node) tear(at moment, cut *Cut) (size int64, err error) {
	size, known, torn := n.durable, false, int64(0)
	for _, c := range slices.Backward(n.log) {
		if c.seq < at.seq && !c.lost {
			if !known {
				size, known = c.sizeAfter, true
			}
			continue
		}
		from := c.off
		if c.seq == at.seq && !c.lost {
			from = (c.off + int64(at.keep*float64(c.end-c.off))) / SectorSize * SectorSize
			from = max(from, c.off)
			if from > c.off {
				torn = min(from, c.sizeAfter)
			}
		}
		if err := n.restore(clip(c.old, from, c.end), cut); err != nil {
			return 0, err
		}
		cut.LostWrites++
	}
	return max(size, torn), nil
}

// shuffle gives each sector one of its contents.
func (n *Node) shuffle(rng *rand.Rand, cut *Cut) error {
	touched := map[int64][]*change{} // by sector, oldest first
	for _, c := range n.log {
		for _, s := range c.old {
			for at := s.off / SectorSize; at*SectorSize < s.end(); at++ {
				if l := touched[at]; len(l) == 0 || l[len(l)-1] != c {
					touched[at] = append(touched[at], c)
				}
			}
		}
	}
	hit := map[*change]bool{}
	for _, at := range slices.Sorted(maps.Keys(touched)) {
		changes := touched[at]
		for _, c := range slices.Backward(changes[rng.IntN(len(changes)+1):]) {
			hit[c] = true
			if err := n.restore(clip(c.old, at*SectorSize, (at+1)*SectorSize), cut); err != nil {
				return err
			}
		}
	}
	cut.LostWrites += len(hit)
	return nil
}

func clip(segs []seg, off, end int64) (out []seg) {
	for _, s := range segs {
		if p := s.part(off, end); p.n > 0 {
			out = append(out, p)
		}
	}
	return out
}

func (n *Node) restore(segs []seg, cut *Cut) error {
	for _, s := range segs {
		cut.LostBytes += s.n
		if s.data != nil {
			if err := pwriteAll(n.fd, s.data, s.off); err != nil {
				return err
			}
			continue
		}
		err := unix.Fallocate(n.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.off, s.n)
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = pwriteAll(n.fd, make([]byte, s.n), s.off)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cutNamesLocked loses names from one change on: a journal has an order.
func (s *Store) cutNamesLocked(mode Mode, at moment, rng *rand.Rand, cut *Cut) {
	keep := 0
	switch {
	case mode == Random:
		keep = rng.IntN(len(s.journal) + 1)
	case mode == Torn:
		for keep < len(s.journal) && s.journal[keep].seq < at.seq {
			keep++
		}
	}
	cut.Names, cut.LostNames = len(s.journal), len(s.journal)-keep
	journal := s.journal
	s.journal = nil
	for _, r := range slices.Backward(journal[keep:]) {
		r.undo()
	}
	for _, r := range journal[:keep] {
		r.finish()
	}
}

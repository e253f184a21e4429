package marks

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// New says what Create makes.
type New struct {
	Binding
	// Peers get slots, in this order.
	Peers []Peer
	// Everything: all blocks may differ from all of them. False only for a volume that was never written anywhere.
	Everything bool
}

func (c *New) validate() error {
	errs := []error{c.Binding.validate()}
	if len(c.Peers) > MaxSlots {
		errs = append(errs, fmt.Errorf("%d peers: a replica keeps marks for at most %d", len(c.Peers), MaxSlots))
	}
	seen := map[string]bool{}
	for _, p := range c.Peers {
		if errs = append(errs, checkPeer(p.Name)); seen[p.Name] {
			errs = append(errs, fmt.Errorf("peer %q is named twice", p.Name))
		}
		seen[p.Name] = true
	}
	return errors.Join(errs...)
}

func checkPeer(p string) error {
	if len(p) == 0 || len(p) > MaxPeer {
		return fmt.Errorf("peer %q: 1 to %d bytes", p, MaxPeer)
	}
	return nil
}

// Size is how long the store of a volume's marks has to be, in bytes.
func Size(volume int64) int64 { return fileSize(volume) }

// Create writes a new map over whatever s holds. Every byte of it is written, so that its space is there.
//
//	1 the cells, flushed                    a crash leaves no header, or those of an older map with cells that are not
//	                                        its own: either way everything is marked
//	2 the headers, one after the other      a crash leaves one, which is complete
func Create(s Store, c New) error {
	if err := c.validate(); err != nil {
		return err
	}
	if got, want := s.Size(), fileSize(c.Size); got < want {
		return fmt.Errorf("%d bytes of room for marks, a volume of %d takes %d", got, c.Size, want)
	}
	var random [8]byte
	rand.Read(random[:]) // never fails
	h := &header{tag: binary.LittleEndian.Uint64(random[:]), generation: 1, size: c.Size, region: regionSize(c.Size),
		cluster: c.Cluster, volume: c.Volume, node: c.Node, incarnation: c.Incarnation}
	for i, p := range c.Peers {
		h.slots[i] = Slot{Peer: p.Name, Replica: p.Replica, Everything: c.Everything}
	}
	if err := writeCells(s, h, func(int64) Slots { return 0 }); err != nil {
		return fmt.Errorf("write the cells: %w", err)
	}
	return writeHeaders(s, h, 0)
}

// writeCells writes the whole table, marked as the regions say, and flushes it.
func writeCells(s Store, h *header, marked func(region int64) Slots) error {
	var page [pageSize]byte
	regions := ceil(h.size, h.region)
	for i := range pages(regions) {
		clear(page[:])
		for c := range pageCells {
			first := (i*pageCells + int64(c)) * cellRegions
			for r := range min(cellRegions, max(regions-first, 0)) {
				putMask(page[c*cellSize:], int(r), marked(first+r))
			}
			sealCell(page[c*cellSize:][:cellSize], uint32(i*pageCells+int64(c)), h.tag)
		}
		if _, err := s.WriteAt(page[:], tableAt+i*pageSize); err != nil {
			return err
		}
	}
	return s.Flush()
}

// writeHeaders writes h over both copies, first over the one that may be spared: there is a whole one at any moment.
func writeHeaders(s Store, h *header, first int) error {
	p := h.encode()
	for _, i := range []int{first, 1 - first} {
		if _, err := s.WriteAt(p, int64(i)*headerSize); err != nil {
			return fmt.Errorf("write header %d: %w", i, err)
		}
		if err := s.Flush(); err != nil {
			return fmt.Errorf("flush header %d: %w", i, err)
		}
	}
	return nil
}

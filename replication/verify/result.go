package verify

import (
	"maps"
	"slices"

	"hacluster/blockdev"
)

// Kind is what is wrong with a range.
type Kind string

// The kinds.
const (
	Different  Kind = "different"  // it has not what the primary has
	Unreadable Kind = "unreadable" // its disk does not give it
)

// Range is a range of one replica with which something is wrong.
type Range struct {
	Node string
	blockdev.Range
	Kind   Kind
	Mended int64 // bytes of it that are equal since a repair
	// Mine and Theirs are the digests of its first block, here and there; of different ones.
	Mine, Theirs []byte
}

// Node is what was found of one replica, in blocks.
type Node struct {
	Node                            string
	Different, Unreadable, Repaired int64
	// Skipped are blocks that differ as the mirror knows already and is mending.
	Skipped int64
	// LeftOut says why it was not compared from LeftAt on; empty: it was.
	LeftOut string
	LeftAt  int64
}

// Result is what came of a run so far.
type Result struct {
	Compared int64 // bytes, of the volume
	Again    int64 // bytes that differed beside the writes and were looked at in order
	Nodes    []Node
	Ranges   []Range // the first ones
	More     bool    // there are more ranges than are kept
	found    []Range // since it was last asked for
}

// maxRanges is how many ranges are kept of what was found. All are counted.
const maxRanges = 64

// Blocks sums up what was found and what was mended of it.
func (s *Result) Blocks() (different, unreadable, repaired int64) {
	for _, n := range s.Nodes {
		different += n.Different
		unreadable += n.Unreadable
		repaired += n.Repaired
	}
	return different, unreadable, repaired
}

// Whole reports whether everybody who was to be compared was, to the end.
func (s *Result) Whole() bool {
	for _, n := range s.Nodes {
		if n.LeftAt > 0 {
			return false
		}
	}
	return true
}

func (s *Result) init(cfg Config) {
	s.Nodes = append(s.Nodes, Node{Node: cfg.Self})
	for _, t := range cfg.Targets {
		s.Nodes = append(s.Nodes, Node{Node: t})
	}
	for _, n := range slices.Sorted(maps.Keys(cfg.Left)) {
		s.Nodes = append(s.Nodes, Node{Node: n, LeftOut: cfg.Left[n]})
	}
}

// node is that of a replica which takes part.
func (s *Result) node(name string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Node == name {
			return &s.Nodes[i]
		}
	}
	panic("verify: replica " + name + " does not take part")
}

// note counts a block and keeps it, in one with what it touches.
func (s *Result) note(b Range) {
	n := s.node(b.Node)
	if b.Kind == Different {
		n.Different++
	} else {
		n.Unreadable++
	}
	s.found = append1(s.found, b)
	for i := range s.Ranges {
		if s.Ranges[i].takes(b) {
			return
		}
	}
	if len(s.Ranges) == maxRanges {
		s.More = true
		return
	}
	s.Ranges = append(s.Ranges, b)
}

// append1 adds a block behind all others, in one with the last where they touch.
func append1(all []Range, b Range) []Range {
	if n := len(all); n > 0 && all[n-1].takes(b) {
		return all
	}
	return append(all, b)
}

// takes puts a block into the range that touches it.
func (r *Range) takes(b Range) bool {
	switch {
	case r.Node != b.Node || r.Kind != b.Kind:
		return false
	case r.End() == b.Off:
	case b.End() == r.Off:
		r.Off, r.Mine, r.Theirs = b.Off, b.Mine, b.Theirs
	default:
		return false
	}
	r.Len += b.Len
	return true
}

// repaired counts a block that was found and is equal now.
func (s *Result) repaired(node string, b blockdev.Range) {
	s.node(node).Repaired++
	for i := range s.Ranges {
		if r := &s.Ranges[i]; r.Node == node && r.Overlaps(b) {
			r.Mended += b.Len
		}
	}
}

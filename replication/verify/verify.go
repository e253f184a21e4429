// Package verify decides how the replicas of a volume are compared while clients write: which range is looked at next, what
// an answer means, what has to be looked at again, what is repaired, what came of it all. It is pure: a Run is asked for
// pieces and told what was seen; package replication reads, asks the members and copies.
//
//	chunk --equal------------------------------------------------------> done
//	  |  \--cannot be read--> halves --...--> one block: unreadable --\
//	  |                                                                +--repair--> looked at in order --> repaired, or not
//	  \--differs--> its blocks, in order --still differ: different ---/
//	                                  \--equal: a write was on its way--> done
//
// A chunk is looked at beside the writes, so that nobody waits for it: what differs there may be a write that has reached
// one side only. The blocks of it that differ are looked at again in the order of all writes (R33), a few at a time, for
// writes to them wait meanwhile. Only what differs then counts.
//
// Memory: what is looked at again is done before the next chunk is begun, so no more is kept than the blocks of the chunks
// in flight, and at most maxRanges of what was found.
package verify

import (
	"time"

	"hacluster/blockdev"
)

// ChunkSize is how much is compared at a time beside the writes, in bytes.
const ChunkSize = 1 << 20

const (
	block = blockdev.BlockSize
	// orderedBlocks is how many blocks are looked at in order at a time: writes to them wait for that long.
	orderedBlocks = 16
	// maxPieces is how many pieces are under way while clients do nothing; one while they do.
	maxPieces = 3
	// maxBad is how many blocks of one chunk are found unreadable one by one on a member; behind them the rest of the chunk
	// counts as unreadable too. Each may keep a dying disk busy for seconds.
	maxBad = 16
	// maxPause bounds a pause: a look that took very long tells of a slow disk, or of a machine that slept.
	maxPause = time.Second
)

// Piece is a range to look at, here and at every target at once.
type Piece struct {
	Range blockdev.Range
	// Ordered: in the order of all writes; else beside them.
	Ordered bool
	chunk   *chunk
	after   mask // by target: blocks that were copied before this look
}

// chunk is what is known of a chunk in work.
type chunk struct {
	size   int64
	pieces int            // not done
	noted  map[place]bool // counted already; at most one for each block and node
}

// place is a block of a replica.
type place struct {
	node string
	off  int64
}

// first reports whether a place is met for the first time.
func (c *chunk) first(p place) bool {
	if c.noted == nil {
		c.noted = map[place]bool{}
	}
	met := c.noted[p]
	c.noted[p] = true
	return !met
}

// count is how many blocks of a node were noted.
func (c *chunk) count(node string) (n int) {
	for p := range c.noted {
		if p.node == node {
			n++
		}
	}
	return n
}

// mask has a bit for each block of an ordered piece, by target.
type mask map[string]uint32

// Mine is what was seen of a piece on the primary.
type Mine struct {
	Digests []byte           // DigestSize bytes for each block
	Bad     []blockdev.Range // blocks that cannot be read: their digests mean nothing
}

func (m Mine) bad(r blockdev.Range) bool {
	for _, b := range m.Bad {
		if b.Overlaps(r) {
			return true
		}
	}
	return false
}

// Seen is what was seen of a piece at a target.
type Seen struct {
	Digests []byte // DigestSize bytes for each block, unless one of the others is set
	// Unreadable: a block of the range could not be read.
	Unreadable bool
	// Unknown: there was no answer, the stream broke.
	Unknown bool
	// Skip: what may differ there is marked, so it is the mirror's own to mend.
	Skip bool
}

// Repair is a range of whole blocks of which a target is to get the primary's content.
type Repair struct {
	Node  string
	Range blockdev.Range
}

// Config is what a Run is made with.
type Config struct {
	Self    string
	Size    int64 // of the volume
	Targets []string
	Left    map[string]string // replicas that are not compared, and why
	// Repair is a person's consent that what differs is overwritten on the targets.
	Repair bool
	// DigestSize is the length of a block's digest.
	DigestSize int
}

// Run is one comparison of the whole volume. Not safe for concurrent use.
type Run struct {
	cfg      Config
	targets  []string // still compared
	todo     []Piece  // to look at before the next chunk; the last one first
	cursor   int64    // where the next chunk begins
	inFlight int
	busy     bool
	result   Result
}

// New begins a run at the volume's beginning.
func New(cfg Config) *Run {
	r := &Run{cfg: cfg, targets: append([]string(nil), cfg.Targets...)}
	r.result.init(cfg)
	return r
}

// Targets are the members that are compared.
func (r *Run) Targets() []string { return r.targets }

// Leave takes a target out: it cannot be compared any more. What was found so far stays.
func (r *Run) Leave(node, why string) {
	for i, t := range r.targets {
		if t == node {
			r.targets = append(append([]string(nil), r.targets[:i]...), r.targets[i+1:]...)
			n := r.result.node(node)
			n.LeftOut, n.LeftAt = why, r.result.Compared
		}
	}
}

// SetBusy tells whether clients use the volume: then one piece is under way at a time.
func (r *Run) SetBusy(busy bool) { r.busy = busy }

// Next hands out a piece; ok false: nothing to do before something in flight has been Looked, or Done. Put takes one back.
func (r *Run) Next() (p Piece, ok bool) {
	most := maxPieces
	if r.busy {
		most = 1
	}
	if r.inFlight >= most || len(r.targets) == 0 {
		return p, false
	}
	if n := len(r.todo); n > 0 {
		p, r.todo = r.todo[n-1], r.todo[:n-1]
		r.inFlight++
		return p, true
	}
	if r.cursor >= r.cfg.Size {
		return p, false
	}
	p.Range = blockdev.Range{Off: r.cursor, Len: min(ChunkSize, r.cfg.Size-r.cursor)}
	p.chunk = &chunk{size: p.Range.Len, pieces: 1}
	r.cursor += p.Range.Len
	r.inFlight++
	return p, true
}

// Put takes a piece back that could not be looked at now.
func (r *Run) Put(p Piece) {
	r.inFlight--
	r.todo = append(r.todo, p)
}

// Result is what came of it so far. Its lists are the caller's.
func (r *Run) Result() Result {
	s := r.result
	s.Nodes = append([]Node(nil), s.Nodes...)
	s.Ranges = append([]Range(nil), s.Ranges...)
	s.found = nil
	return s
}

// Found is what was found since it was last asked for.
func (r *Run) Found() []Range {
	f := r.result.found
	r.result.found = nil
	return f
}

// Done reports whether everything was compared, or nobody is left to compare with.
func (r *Run) Done() bool {
	return r.inFlight == 0 && (len(r.targets) == 0 || len(r.todo) == 0 && r.cursor >= r.cfg.Size)
}

// Pause is how long to let the disks alone after a look that took so long: as long again while clients use the volume, so
// that they have them for at least half of the time.
func (r *Run) Pause(took time.Duration) time.Duration {
	if !r.busy {
		return 0
	}
	return min(took, maxPause)
}

// Package marks keeps on stable storage which regions of a volume may differ from which peer: the write-intent marks of
// one replica (R14). A mark is durable before the first write to a clean region; where a region is marked already, which
// is the common case, marking costs a few nanoseconds and touches no disk.
//
//	Mark(range) --every region durably marked--> ready: write at once
//	     \--else--> queued --group: one write of what changed, one flush--> Waiter.Marked: write now
//
// The file, little-endian, has a fixed size, so that marking never needs space that is not there:
//
//	0      header, 4 KiB: whose map it is, the peers' slots, their clearing numbers
//	4096   the same once more: an update writes and flushes one after the other, so whatever it was in the middle of, or
//	       whichever one rots, the other holds everything that was acknowledged
//	8192   cells of 512 bytes, one disk sector, each with its own checksum: 248 regions of 16 bits, a bit for each slot
//
// Cells are changed in place, in pages of 4 KiB. A power cut leaves each sector old or new, and either is right: what it
// was to mark has not been written to yet. A cell that is damaged all the same means that its regions may differ, for
// every peer; a damaged file that everything may. Nothing damaged is ever taken for clean (R16).
//
// Clearing is lazy: it is seen at once, written with the next group, and a clearing that a crash undoes marks too much,
// never too little. Clearing numbers, which tell a restored map from the true one, are the header's (SetNumber).
//
// The package refuses, naming the field: a file of another cluster, volume, node, size or backing, and one of a format
// that it does not know, without writing to it. It decides nothing: which region may be cleared when is replication/maps'
// to say. A failed write or flush is final until Revive, or until the file is opened anew; what is durable by then stays so.
//
// Invariants:
//   - a region's durable bits are a subset of what is on stable storage
//   - a bit that is wanted and not durable is in the group being written or in the one that gathers
//   - Waiters are told in the order of their groups, once each, never within Mark
package marks

import (
	"errors"
	"fmt"

	"hacluster/blockdev/meta"
)

// Version is the newest format that this program reads. A map is written in the oldest that holds it: 2 has Slot.Replica.
const Version = 2

// MaxSlots is how many peers a replica can keep apart.
const MaxSlots = 16

// MaxPeer is how long a peer's name may be, in bytes.
const MaxPeer = 64

// What callers decide on.
var (
	// ErrNone: there is no file, or an empty one. All blocks may differ, unless the volume was never written: Create says which.
	ErrNone = errors.New("no map of marks")
	// ErrCorrupt: neither header is valid. All blocks may differ (R16): Create anew with everything marked.
	ErrCorrupt = errors.New("map of marks is damaged")
	// ErrVersion: it was written by a newer program.
	ErrVersion = errors.New("map of marks is of an unknown version")
	// ErrFailed: an earlier write or flush failed; nothing more is written until Revive, or until the file is opened anew.
	ErrFailed = errors.New("map of marks could not be written")
	// ErrClosed: the file was closed.
	ErrClosed = errors.New("map of marks is closed")
	// ErrSlots: all slots are taken, or there is none of that name.
	ErrSlots = errors.New("no such slot in the map of marks")
)

// Slots is a set of slots, a bit for each.
type Slots uint16

// Of is the set of one slot.
func Of(slot int) Slots { return 1 << slot }

// Number counts the clearings that a replica and a peer agreed on (R14): Promised is the newest that this replica said it
// stored, Settled the newest that all who take part are known to have promised; only that one is carried out. Neither
// falls. What they say of a map that went back is replication/maps' to judge.
type Number struct{ Promised, Settled uint64 }

// Peer is another replica: its node, and its number when it was added to the volume later, else 0. A node that left and was added again
// is another one: what was marked for the first says nothing of it.
type Peer struct {
	Name    string
	Replica uint32
}

// Slot is what the file keeps of one peer. Its place never changes while the peer is there.
type Slot struct {
	Peer    string // empty: the slot is free
	Replica uint32 // see Peer
	Number  Number
	// Everything: all blocks may differ, whatever the regions say.
	Everything bool
}

// Incarnation is in which process, kernel and attachment of the backing the file was opened.
type Incarnation struct {
	Boot       meta.ID
	Attachment string // at most meta.MaxAttachment bytes
	Start      uint64
}

// Binding is what a file must agree with.
type Binding struct {
	Cluster, Volume meta.ID
	Node            string // at most meta.MaxNode bytes
	Size            int64  // of the volume
	// Incarnation now. What a restart changes may differ from the stored one; the backing itself may not.
	Incarnation Incarnation
	// Doubt, when not empty, says why the map is not to be believed whatever it says: all blocks may differ (R16).
	Doubt string
}

// doubt says why a map that was last opened in the incarnation then need not be one of this backing; empty: it is.
func (b *Binding) doubt(then Incarnation) string {
	if b.Doubt != "" || then.Boot == b.Incarnation.Boot && then.Attachment == b.Incarnation.Attachment {
		return b.Doubt
	}
	why, _ := meta.Unproven(then.Attachment, b.Incarnation.Attachment)
	return why
}

func (b *Binding) validate() error {
	var errs []error
	if b.Size <= 0 || b.Size > MaxVolume {
		errs = append(errs, fmt.Errorf("size %d of the volume: marks are kept for 1 byte to %d", b.Size, int64(MaxVolume)))
	}
	if n := len(b.Node); n == 0 || n > meta.MaxNode {
		errs = append(errs, fmt.Errorf("node %q: 1 to %d bytes", b.Node, meta.MaxNode))
	}
	if n := len(b.Incarnation.Attachment); n > meta.MaxAttachment {
		errs = append(errs, fmt.Errorf("attachment %q: at most %d bytes", b.Incarnation.Attachment, meta.MaxAttachment))
	}
	return errors.Join(errs...)
}

// check returns every field in which the header is not the binding's.
func (b *Binding) check(h *header) error {
	var errs []error
	differ := func(same bool, field string, found, expected any, do string) {
		if !same {
			errs = append(errs, &meta.Mismatch{Field: field, Found: fmt.Sprint(found), Expected: fmt.Sprint(expected), Do: do})
		}
	}
	const other = "put the right directory of the volume back, or remove the replica and add it anew"
	differ(h.cluster == b.Cluster, "cluster id", fmt.Sprintf("%x", h.cluster), fmt.Sprintf("%x", b.Cluster), other)
	differ(h.volume == b.Volume, "volume id", fmt.Sprintf("%x", h.volume), fmt.Sprintf("%x", b.Volume), other)
	differ(h.node == b.Node, "node", h.node, b.Node, "give each node a data_dir of its own; a copied one cannot be used")
	differ(h.size == b.Size, "size", h.size, b.Size, "set the volume's size back")
	if why, same := meta.SameBacking(h.incarnation.Attachment, b.Incarnation.Attachment); !same {
		differ(false, "attachment", h.incarnation.Attachment, b.Incarnation.Attachment, why+": put the old backing back, or remove the replica and add it anew")
	}
	return errors.Join(errs...)
}

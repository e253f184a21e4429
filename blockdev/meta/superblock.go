// Package meta keeps what a replica must know about itself on stable storage: the superblock, which says whose replica
// of what it is, on which backing, up to which epoch, and whether it may be trusted. It lies in a small file of its own
// beside the other metadata of the volume; the backing holds nothing but the volume's data.
//
// The file has two copies of one block each, written in turn, so that a torn write leaves the other one valid (R22).
// Formats are pinned by golden files in testdata.
//
// The package refuses, naming the field, what was found, what was expected and what to do: a superblock of another
// cluster, volume, node, size or backing; one of a format that it does not know, without writing to it; one whose
// copies are both damaged. It never makes one where none is: only Create does, and it overwrites nothing.
//
// Invariants:
//   - the copy with the highest valid generation is the superblock
//   - generation g lies in copy g%2, so a write never touches the newest valid copy
//   - (ReservedGen, Epoch) never falls, and neither does Resized; Size falls only when that rises
//   - after a failed write nothing is written any more until the file is opened anew
//
// Replication opens one for each replica; the composition root creates it at the first start.
package meta

import (
	"errors"
	"fmt"
	"strings"
)

// Version is the newest format that this program reads. A superblock is written in the oldest that holds it: 2 has Resized, 3
// has Replica.
const Version = 3

// What the strings of a superblock may hold, in bytes.
const (
	MaxNode       = 64
	MaxAttachment = 128
	MaxDevicePath = 256
)

// What callers decide on.
var (
	// ErrNoSuperblock: there is none, neither valid nor damaged. Whether to create one is decided by what the backing holds.
	ErrNoSuperblock = errors.New("no superblock")
	// ErrExists: Create found something in the way.
	ErrExists = errors.New("a superblock exists already")
	// ErrCorrupt: there is something and no copy of it is valid.
	ErrCorrupt = errors.New("superblock is damaged")
	// ErrVersion: it was written by a newer program.
	ErrVersion = errors.New("superblock is of an unknown version")
	// ErrMismatch: it belongs to something else.
	ErrMismatch = errors.New("superblock belongs to something else")
	// ErrFailed: an earlier Update failed, so what is on the disk is unknown until the file is opened anew.
	ErrFailed = errors.New("superblock could not be written")
)

// ID is an identity given at random once.
type ID = [16]byte

// Superblock is what a replica knows about itself.
type Superblock struct {
	// Identity, fixed by Create; Size changes with a higher Resized, and may grow.
	ClusterID, VolumeID ID
	Node                string // at most MaxNode bytes
	Size                int64
	BlockSize           uint32
	DevicePath          string // of the backing, at most MaxDevicePath bytes
	// Resized is the number of Size: of two sizes that a volume had, the one with the higher number is the newer.
	Resized uint64
	// Replica is the number of the replica, when it was added to its volume later; 0: the volume was created with it. A node that left a
	// volume and was added again has another one.
	Replica uint32

	// Attachment identifies the backing as it was attached when this was written, as filedev tells it.
	Attachment string
	// Generation counts writes of the superblock. The File sets it.
	Generation uint64
	// Epoch is the highest epoch that this replica answered in, stored before it answered (R2).
	Epoch uint64
	// ReservedGen is the generation of the Raft group's formation; 0 as long as there is one formation only. Epochs
	// compare by (ReservedGen, Epoch).
	ReservedGen uint64
	// Inconsistent: a resync overwrites the replica, so it must not be promoted, unless an undo area beside this leads
	// back to its last consistent point (R18).
	Inconsistent bool
	// Failed: a write or flush failed, so it must not be promoted before a resync (R23).
	Failed bool
	// CleanStop is set after the last flush and cleared before the next write (R25).
	CleanStop CleanStop
}

// CleanStop says that nothing was unflushed when a process ended, and names its incarnation.
type CleanStop struct {
	Valid      bool
	BootID     ID
	Attachment string
	Start      uint64 // the process's start number
}

// Binding is what an opened superblock must agree with.
type Binding struct {
	ClusterID, VolumeID ID
	Node                string
	Size                int64
	Resized             uint64
	Replica             uint32
	BlockSize           uint32
	DevicePath          string
	// Attachment of the backing now. It may differ from the stored one in what a restart changes, not in which file or
	// kind of device it is. Empty: not compared.
	Attachment string
}

// Mismatch is one field in which a superblock and what it should be differ.
type Mismatch struct{ Field, Found, Expected, Do string }

func (m *Mismatch) Error() string {
	return fmt.Sprintf("%s: found %s, expected %s: %s", m.Field, m.Found, m.Expected, m.Do)
}

// Is makes every Mismatch an ErrMismatch.
func (m *Mismatch) Is(target error) bool { return target == ErrMismatch }

// check returns every field that differs, or nil.
func (b *Binding) check(sb *Superblock) error {
	const readd = "remove the replica and add it anew, or restore the right "
	var errs []error
	differ := func(same bool, field string, found, expected any, do string) {
		if !same {
			errs = append(errs, &Mismatch{field, fmt.Sprint(found), fmt.Sprint(expected), do})
		}
	}
	differ(sb.ClusterID == b.ClusterID, "cluster id", hexID(sb.ClusterID), hexID(b.ClusterID), readd+"data_dir: this one is of another cluster")
	differ(sb.VolumeID == b.VolumeID, "volume id", hexID(sb.VolumeID), hexID(b.VolumeID), readd+"directory of the volume: this one is of another")
	differ(sb.Node == b.Node, "node", quote(sb.Node), quote(b.Node), "give each node a data_dir of its own; a copied one cannot be used")
	differ(sb.Size == b.Size, "size", sb.Size, b.Size, "set the volume's size back: the sizes of a volume and its replicas must agree")
	differ(sb.Resized == b.Resized, "number of the size", sb.Resized, b.Resized, "find out which of the two went back, the cluster's state or this replica's: neither may")
	differ(sb.Replica == b.Replica, "number of the replica", sb.Replica, b.Replica, "find out which of the two went back, the cluster's state or this replica's: what one replica of a node holds is never taken for what another of it had")
	differ(sb.BlockSize == b.BlockSize, "block size", sb.BlockSize, b.BlockSize, readd+"metadata")
	differ(sb.DevicePath == b.DevicePath, "device path", quote(sb.DevicePath), quote(b.DevicePath), "set the replica's device back, or remove the replica and add it anew")
	if why, same := sameBacking(sb.Attachment, b.Attachment); !same {
		differ(false, "attachment", quote(sb.Attachment), quote(b.Attachment), why+": put the old backing back, or remove the replica and add it anew")
	}
	return errors.Join(errs...)
}

// sameIdentity returns the mismatches between two superblocks in what never changes.
func sameIdentity(found, expected *Superblock) error {
	b := Binding{
		ClusterID: expected.ClusterID, VolumeID: expected.VolumeID, Node: expected.Node, Size: expected.Size, Resized: expected.Resized, Replica: expected.Replica,
		BlockSize: expected.BlockSize, DevicePath: expected.DevicePath,
	}
	return b.check(found)
}

// validate refuses what the format cannot hold.
func (sb *Superblock) validate() error {
	var errs []error
	for _, s := range []struct {
		field, value string
		limit        int
	}{
		{"node", sb.Node, MaxNode},
		{"attachment", sb.Attachment, MaxAttachment},
		{"device path", sb.DevicePath, MaxDevicePath},
		{"clean-stop attachment", sb.CleanStop.Attachment, MaxAttachment},
	} {
		if len(s.value) > s.limit || strings.IndexByte(s.value, 0) >= 0 {
			errs = append(errs, fmt.Errorf("%s %q: %d bytes, at most %d without NUL fit", s.field, s.value, len(s.value), s.limit))
		}
	}
	if sb.Size <= 0 || sb.BlockSize == 0 || sb.Size%int64(sb.BlockSize) != 0 {
		errs = append(errs, fmt.Errorf("size %d is not a positive multiple of the block size %d", sb.Size, sb.BlockSize))
	}
	return errors.Join(errs...)
}

func hexID(id ID) string { return fmt.Sprintf("%x", id[:]) }

func quote(s string) string { return fmt.Sprintf("%q", s) }

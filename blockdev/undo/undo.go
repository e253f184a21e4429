// Package undo keeps the old content of what is overwritten on one replica: its way back to its last consistent point
// (R18). Before a resync first changes a block, the block's old content is durable here; the first old content counts.
//
//	Begin(point) -> Log(range) --all of it durable--> ready: overwrite at once
//	                     \--else--> queued --group: one write, one flush--> Waiter.Logged: overwrite now
//	LogOld: what the caller has read of them already is taken instead
//	Discard: the resync has ended, or the way back is given up
//	Each: the way back, block range by block range
//
// The area is a file, little-endian, that grows at its end only:
//
//	0      header, 4 KiB: whose area it is, and which point it leads back to; made whole, never changed
//	4096   records: 512 bytes that say what follows, with a checksum of both, then the old content; zeroes take no room
//
// Records lie on disk sectors, so a torn write never touches one before it. They are written in groups, and a group is
// written when the one before it is durable; it is made meanwhile. So a record that fails its checksum at the end belongs to
// the last group, whose blocks nobody has overwritten yet: it is cut off. One with a record of a later group behind it was
// durable once: the way back is lost (ErrCorrupt), and so it is when the header is damaged. What is lost that way is told,
// never guessed.
//
// That an area is live is not for it to say: the replica's superblock says that the replica is in pieces, before the first
// block is overwritten and after the area is there, and that it is whole before the area goes. An area beside a whole
// replica is over.
//
// An area that is kept when its resync has ended is a rescue image (package rescue). It goes on logging, without flushes (Relax).
//
// The package refuses, naming the field: an area of another cluster, volume, node, size or backing, or begun in an epoch
// that the superblock does not know; one of a format that it does not know, without writing to it. It decides nothing.
//
// Invariants:
//   - a block counts as logged only when its old content is durable
//   - what was logged is never written again until the area is discarded
//   - after a failed write or flush nothing is logged any more: Discard is left
package undo

import (
	"errors"
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/meta"
)

// Version is the format that this program writes, and the newest that it reads.
const Version = 1

// What callers decide on.
var (
	// ErrNone: there is no area.
	ErrNone = errors.New("no undo area")
	// ErrCorrupt: what was durable in it is damaged: there is no way back.
	ErrCorrupt = errors.New("undo area is damaged")
	// ErrVersion: it was written by a newer program.
	ErrVersion = errors.New("undo area is of an unknown version")
	// ErrNoRoom: its limit is reached, or the file system has no room to spare.
	ErrNoRoom = errors.New("no room for the undo area")
	// ErrFailed: an earlier group could not be written, or the old content not be read.
	ErrFailed = errors.New("undo area could not be written")
	// ErrClosed: it was discarded or closed.
	ErrClosed = errors.New("undo area is closed")
)

// Point is what an area leads back to.
type Point struct {
	Epoch uint64 // in which the replica was a member last
	// AtMillis is until when it has every acknowledged write: milliseconds since 1970, for people; 0: that is not known.
	AtMillis int64
}

// Binding is what an area must agree with.
type Binding struct {
	Cluster, Volume meta.ID
	Node            string // at most meta.MaxNode bytes
	Size            int64  // of the volume
	Attachment      string // of the backing, at most meta.MaxAttachment bytes
	// Epoch is the one stored in the superblock. An area that was begun in a newer one is not of this superblock.
	Epoch uint64
}

func (b *Binding) validate() error {
	var errs []error
	if b.Size <= 0 {
		errs = append(errs, fmt.Errorf("size %d of the volume", b.Size))
	}
	if n := len(b.Node); n == 0 || n > meta.MaxNode {
		errs = append(errs, fmt.Errorf("node %q: 1 to %d bytes", b.Node, meta.MaxNode))
	}
	if n := len(b.Attachment); n > meta.MaxAttachment {
		errs = append(errs, fmt.Errorf("attachment %q: at most %d bytes", b.Attachment, meta.MaxAttachment))
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
	differ(h.began <= b.Epoch, "epoch", h.began, fmt.Sprintf("at most %d, which the superblock has", b.Epoch), other)
	if why, same := meta.SameBacking(h.attachment, b.Attachment); !same {
		differ(false, "attachment", h.attachment, b.Attachment, why+": put the old backing back, or remove the replica and add it anew")
	}
	return errors.Join(errs...)
}

// Source is what is overwritten: where old content is read.
type Source interface {
	ReadAt(p []byte, off int64) (n int, err error)
	blockdev.Mapper
}

// Waiter is told, once and from the goroutine that writes groups, that the old content which it waits for is durable, or
// why it is not: then nothing of it may be overwritten before the area is discarded. It must not block.
type Waiter interface{ Logged(err error) }

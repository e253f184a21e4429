// Package rescue keeps aside what a replica held when a person had another one promoted: it may have acknowledged writes
// that the new epoch lacks, and none of them is discarded in silence (R19).
//
// A rescue image is an undo area (package undo) that is not removed when the resync ends. While the resync overwrites the
// replica, the image takes the old content of each block, durably and before the block changes, and is the replica's way
// back. When the resync ends the image is closed: it gets a label, and stays until a person deletes it.
//
//	Begin -> area.Log, as for any resync -> Finish --label: closed--> kept: list, read in pieces, Remove
//	   \-- the way back was taken: Drop; a person had the resync go on without it: CloseEarly
//
// An image holds the blocks that differed, not all of the volume. What was alike is read from the replica itself, and for
// that to stay true the image goes on taking old content when it is closed: before anything is written to the replica, Keep
// has the blocks copied that no image has (package replication puts that under everything that writes). Then image and
// replica together are the whole volume as it was when the resync began. That promise, and it alone, is given up rather than
// let anybody wait: without room, when a copy takes too long, when the process ends without Stop, on another backing. An
// image of which it was given up still has every block that the resync overwrote.
//
// So Keep waits for no flush: what it wrote is made durable by Stop, and a label says that the promise holds only from
// Stop until the next Open.
//
// On stable storage, in a directory for each image: "image", in undo's format, and "label", 4 KiB, replaced as a whole. That
// an image without a label is live is for the superblock to say, as with any undo area: beside a replica in pieces it is, and
// beside one that is whole the resync has ended and its label is written now. Beside the images lies "ledger", 4 KiB, replaced
// as a whole, which outlives them: no id is ever given twice.
//
// The package refuses to begin a second image in one resync, and more than MaxImages. It decides nothing.
package rescue

import (
	"errors"
	"time"

	"hacluster/blockdev/undo"
)

// MaxImages is how many images of a replica are kept. At the limit no resync begins that needs a further one.
const MaxImages = 16

// maxResumed is how many bytes the file of an image may have that goes on being a whole volume after a restart: all of it is
// read before the replica opens.
const maxResumed = 64 << 20

// What callers decide on.
var (
	// ErrNone: there is no such image.
	ErrNone = errors.New("no such rescue image")
	// ErrTooMany: MaxImages are kept.
	ErrTooMany = errors.New("too many rescue images are kept: export what is needed, and delete them")
	// ErrOthers: what the image had is gone, and its directory is not: somebody has put other files there.
	ErrOthers = errors.New("other files are in the directory of the rescue image, and left there")
	// ErrLive: the image belongs to a resync that has not ended.
	ErrLive = errors.New("the resync that the rescue image belongs to has not ended")
	// ErrForeign: it is of another volume.
	ErrForeign = errors.New("the rescue image is of another volume, and nothing here can be read over it: put its directory back where it belongs")
	// ErrNotWhole: of what the image does not hold, the replica may have been written to since.
	ErrNotWhole = errors.New("the rescue image is no whole volume any more")
)

// Info tells of an image.
type Info struct {
	ID     string
	Epoch  uint64     // of the promotion by force after which it was made
	Point  undo.Point // in which epoch the replica was a member last, and until when
	Closed time.Time  // when the resync ended; zero: it has not
	Bytes  int64      // of the volume that the resync overwrote and the image holds the old content of
	File   int64      // bytes of its file, what was kept since included
	Whole  bool       // together with the replica it is the whole volume
	// Complete: it has the old content of all that the resync overwrote, so far.
	Complete bool
	Why      string // it is not whole, or what is wrong with it
}

package standby

import "hacluster/heartbeat/cluster"

// Way is what a replica has to return by, in the middle of a resync.
type Way struct {
	InPieces bool // a resync has begun to overwrite it and has not ended
	Live     bool // what was overwritten is there, all of it
	// Image: it is a rescue image, begun in epoch Since; else it is thrown away when the resync ends.
	Image bool
	Since cluster.Epoch
	Room  bool // there is a place for rescue images
}

// Keeping is what becomes of what a resync overwrites.
type Keeping uint8

// The ways to keep it, or not.
const (
	GoOn       Keeping = iota + 1 // with what there is, or without
	BeginUndo                     // make an undo area; without room go on without
	BeginImage                    // make a rescue image; without room nothing is overwritten
	Await                         // nothing is overwritten before a person says that it may be
)

// Keep decides what must be there before a resync changes node's replica (R18, R19). One that is held may have acknowledged
// writes that the epoch lacks, so all that is overwritten since the promotion by force goes into an image. What an image that
// was begun before has the old content of, may have been written since, and by then acknowledged.
func Keep(v *cluster.Volume, node string, w Way) Keeping {
	held := v.IsHeld(node)
	switch {
	case !held && w.InPieces:
		return GoOn
	case !held:
		return BeginUndo
	case !w.Room:
		return Await
	case !w.InPieces:
		return BeginImage
	case w.Live && w.Image && w.Since >= v.HeldSince:
		return GoOn
	}
	return Await
}

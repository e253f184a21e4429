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
	// Kept is the newest epoch in which a resync began that has ended with a rescue image; 0: none has.
	Kept cluster.Epoch
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
	owes := Owes(v, node, w.Kept)
	switch {
	case !owes && w.InPieces:
		return GoOn
	case !owes:
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

// Owes reports whether node's replica may have acknowledged writes that the epoch lacks, and that are in no rescue image yet.
// Kept as in Way. A hold outlasts the resync that kept them when its stream breaks before the admission. What the replica took
// in since came from primaries of the line that goes on from the promotion by force: what any of them acknowledged, the next one
// has (R6), until another promotion by force, which is another hold.
func Owes(v *cluster.Volume, node string, kept cluster.Epoch) bool {
	return v.IsHeld(node) && (v.HeldSince == 0 || kept < v.HeldSince)
}

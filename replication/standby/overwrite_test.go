package standby

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

func TestHeldReplicaIsOverwrittenOnlyIntoAnImage(t *testing.T) { // R18, R19
	held := &cluster.Volume{Epoch: 9, Held: []string{"x", "s"}, HeldSince: 7}
	free := &cluster.Volume{Epoch: 9, Held: []string{"x"}, HeldSince: 7}
	for name, c := range map[string]struct {
		v    *cluster.Volume
		w    Way
		want Keeping
	}{
		"whole":                      {free, Way{}, BeginUndo},
		"in pieces, with a way back": {free, Way{InPieces: true, Live: true, Room: true}, GoOn},
		"in pieces, without":         {free, Way{InPieces: true}, GoOn},
		"in pieces, with an image; a person agreed": {free, Way{InPieces: true, Live: true, Image: true, Since: 3, Room: true}, GoOn},
		"held":                                      {held, Way{Room: true}, BeginImage},
		"held, nowhere to keep it":                  {held, Way{}, Await},
		"held, in pieces, image of this hold":       {held, Way{InPieces: true, Live: true, Image: true, Since: 7, Room: true}, GoOn},
		"held, in pieces, image of a later epoch":   {held, Way{InPieces: true, Live: true, Image: true, Since: 8, Room: true}, GoOn},
		"held, in pieces, image of an earlier hold": {held, Way{InPieces: true, Live: true, Image: true, Since: 6, Room: true}, Await},
		"held, in pieces, image is damaged":         {held, Way{InPieces: true, Image: true, Since: 7, Room: true}, Await},
		"held, in pieces by a resync before, undo":  {held, Way{InPieces: true, Live: true, Since: 8, Room: true}, Await},
		"held, in pieces, without any way":          {held, Way{InPieces: true, Room: true}, Await},
		"held, in pieces, image, place is gone now": {held, Way{InPieces: true, Live: true, Image: true, Since: 7}, Await},
		"held, kept in this hold":                   {held, Way{Room: true, Kept: 7}, BeginUndo},
		"held, kept in a later epoch":               {held, Way{Room: true, Kept: 8}, BeginUndo},
		"held, kept in an earlier hold":             {held, Way{Room: true, Kept: 6}, BeginImage},
		"held, kept, in pieces, undo":               {held, Way{InPieces: true, Live: true, Since: 8, Room: true, Kept: 7}, GoOn},
		"held, kept, in pieces, without":            {held, Way{InPieces: true, Room: true, Kept: 7}, GoOn},
		"held, kept before, in pieces, undo":        {held, Way{InPieces: true, Live: true, Since: 8, Room: true, Kept: 6}, Await},
		"held since nobody knows when, kept":        {&cluster.Volume{Epoch: 9, Held: []string{"s"}}, Way{Room: true, Kept: 9}, BeginImage},
	} {
		if got := Keep(c.v, "s", c.w); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

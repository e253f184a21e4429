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
	} {
		if got := Keep(c.v, "s", c.w); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

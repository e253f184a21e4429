package rescue

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev/undo"
)

// A person has a resync go on without room for its image: what could be kept is kept, and says that it is not all.
func TestImageClosedEarlyKeepsWhatItHas(t *testing.T) { // R18, R19
	g := newRig(t, 40)
	want := g.content()
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(block(3, 4))
	a, _ := g.shelf.Live()
	a.GiveUp(undo.ErrNoRoom)
	i, err := g.shelf.CloseEarly(time.UnixMilli(1764000009000), "no room")
	must(t, err)
	g.put(block(20, 4)) // unseen
	for n := range 3 {
		all := g.shelf.List()
		if len(all) != 1 || all[0].Whole || all[0].Complete || all[0].Bytes != 4*4096 || all[0].Why != "no room" || all[0].Closed.IsZero() {
			t.Fatalf("told of as %+v", all)
		}
		if a, _ := g.shelf.Live(); a != nil || g.shelf.Kept() != 0 {
			t.Fatalf("it is taken for the way back, or for all that there was: %v, kept since %d", a, g.shelf.Kept())
		}
		if _, err := g.exported(i.ID, false, nil); !errors.Is(err, ErrNotWhole) || !strings.Contains(err.Error(), "16384 bytes") {
			t.Fatalf("read: %v", err)
		}
		got, err := g.exported(i.ID, true, nil)
		must(t, err)
		differ(t, got[:20*4096], want[:20*4096])
		g.open(n == 0) // in the middle of the resync, and after it
	}
	if j, err := g.shelf.Finish(time.Now()); err != nil || j.ID != "" {
		t.Fatalf("the end of the resync closed %+v, %v", j, err)
	}
	must(t, g.shelf.Remove(i.ID))
}

// What has nothing, and what cannot be labelled, goes: the next process would lead the replica back into a mixture.
func TestImageClosedEarlyIsNoWayBack(t *testing.T) { // R18
	g := newRig(t, 41)
	must(t, g.shelf.Begin(testPoint, 5))
	if i, err := g.shelf.CloseEarly(time.Now(), "no room"); err != nil || i.ID != "" || len(g.shelf.List()) != 0 {
		t.Fatalf("of nothing: %+v, %v", i, err)
	}
	room := &failing{Dir: g.room}
	must(t, g.openIn(room, 9, false))
	must(t, g.shelf.Begin(testPoint, 6))
	g.resync(block(3, 4))
	room.setLabel = true
	if i, err := g.shelf.CloseEarly(time.Now(), "no room"); err != nil || i.ID != "" || len(g.ended) != 1 {
		t.Fatalf("without a label: %+v, %v, told %q", i, err, g.ended)
	}
	g.open(true)
	if a, _ := g.shelf.Live(); a != nil || len(g.shelf.List()) != 0 {
		t.Fatalf("left: %v, %+v", a, g.shelf.List())
	}
}

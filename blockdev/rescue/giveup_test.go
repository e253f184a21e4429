package rescue

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
)

// failing is a Room that fails as it is told.
type failing struct {
	*Dir
	image, label, setLabel, spoil, make, setLedger bool
}

func (r *failing) Image(id string) undo.Place {
	if r.image {
		return unopened{r.Dir.Image(id)}
	}
	return r.Dir.Image(id)
}

func (r *failing) Label(id string) ([]byte, error) {
	if r.label {
		return nil, syscall.EIO
	}
	return r.Dir.Label(id)
}

func (r *failing) SetLabel(id string, p []byte) error {
	if r.setLabel {
		return syscall.ENOSPC
	}
	return r.Dir.SetLabel(id, p)
}

func (r *failing) Spoil(id string, p []byte) error {
	if r.spoil {
		return syscall.EIO
	}
	return r.Dir.Spoil(id, p)
}

func (r *failing) Make(id string) error {
	if r.make {
		return syscall.ENOSPC
	}
	return r.Dir.Make(id)
}

func (r *failing) SetLedger(p []byte) error {
	if r.setLedger {
		return syscall.ENOSPC
	}
	return r.Dir.SetLedger(p)
}

type unopened struct{ undo.Place }

func (unopened) Open() (undo.Store, error) { return nil, syscall.EMFILE }

func (g *rig) openIn(room Room, epoch uint64, inPieces bool) error {
	s, err := Open(Config{Room: room, Patience: time.Minute, Ended: func(id, why string) { g.ended = append(g.ended, id+": "+why) },
		Binding: undo.Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "alpha", Size: testVolume, Attachment: g.attach, Epoch: epoch}}, g.dev, inPieces)
	if err == nil {
		g.shelf = s
	}
	return err
}

// Whatever is wrong with a label or an image at one start: the replica opens, the promise has ended, and no later start takes
// it up again. What the resync overwrote can be read.
func TestPromiseThatWasGivenUpOnceStaysSo(t *testing.T) { // R19
	for name, c := range map[string]struct {
		room  failing
		epoch uint64
	}{
		"image cannot be opened":                {failing{image: true}, 9},
		"superblock made anew":                  {failing{}, 0},
		"label cannot be read":                  {failing{label: true}, 9},
		"label cannot be replaced":              {failing{setLabel: true}, 9},
		"label cannot be read, nor replaced":    {failing{label: true, setLabel: true}, 9},
		"no room, and the superblock made anew": {failing{setLabel: true}, 0},
		"told no sooner than at the end":        {failing{image: true, setLabel: true, spoil: true}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			g, want, id := rescued(t, 15, block(3, 4))
			must(t, g.shelf.Stop())
			room := c.room
			room.Dir = g.room
			must(t, g.openIn(&room, c.epoch, false))
			if i := g.shelf.List(); len(i) != 1 || i[0].Whole || i[0].Why == "" {
				t.Fatalf("told of as %+v", i)
			}
			g.write(block(20, 4)) // nothing keeps it
			room.setLabel, room.spoil = false, false
			if c.room.spoil { // else it is told before anything is written, and the process may die
				must(t, g.shelf.Stop())
			}
			g.open(false)
			if i := g.shelf.List(); len(i) != 1 || i[0].Whole {
				t.Fatalf("a later start tells of it as %+v", i)
			}
			got, err := g.exported(id, true, nil)
			must(t, err)
			differ(t, got[:7*4096], want[:7*4096])
		})
	}
}

// Beside a superblock that was made anew, an image of the replica before is no way back, and in nobody's way.
func TestLiveImageOfTheReplicaBeforeIsClosed(t *testing.T) { // R18, R19
	g := newRig(t, 16)
	want := g.content()
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(block(3, 4))
	must(t, g.shelf.Stop())
	must(t, g.openIn(g.room, 0, true))
	if a, _ := g.shelf.Live(); a != nil {
		t.Fatal("it is taken for the way back")
	}
	must(t, g.shelf.Stop())
	g.open(true) // and remains so
	i := g.shelf.List()
	if a, _ := g.shelf.Live(); a != nil || len(i) != 1 || i[0].Whole || !strings.Contains(i[0].Why, "before") {
		t.Fatalf("told of as %+v", i)
	}
	got, err := g.exported(i[0].ID, true, nil)
	must(t, err)
	differ(t, got[:7*4096], want[:7*4096])
}

// A resync ends although its image cannot be labelled as it should; one that cannot be labelled at all must not be left: it
// would be taken for the way back of the next resync.
func TestResyncEndsWhenTheLabelCannotBeWritten(t *testing.T) { // R18, R19
	g := newRig(t, 17)
	room := &failing{Dir: g.room, setLabel: true, spoil: true}
	must(t, g.openIn(room, 9, false))
	want := g.content()
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(block(3, 4))
	if _, err := g.shelf.Finish(time.Now()); err == nil {
		t.Fatal("closed without a label")
	}
	room.spoil = false
	i, err := g.shelf.Finish(time.Now())
	must(t, err)
	if i.Whole || len(g.ended) != 1 {
		t.Fatalf("told of as %+v, events %v", i, g.ended)
	}
	must(t, g.openIn(g.room, 9, true))
	if a, _ := g.shelf.Live(); a != nil {
		t.Fatal("it is taken for the way back of another resync")
	}
	got, err := g.exported(i.ID, true, nil)
	must(t, err)
	differ(t, got[:7*4096], want[:7*4096])
}

// What is sound of an image that was found damaged when it was closed can be read.
func TestDamagedImageKeepsItsSoundRecords(t *testing.T) { // R19
	g := newRig(t, 18)
	want := g.content()
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(block(4, 2))
	g.resync(block(10, 2))
	g.resync(block(22, 2))
	must(t, g.shelf.Stop())
	path := filepath.Join(g.room.Path, "alpha-e5-1", "image")
	p, err := os.ReadFile(path)
	must(t, err)
	p[len(p)/2] ^= 1
	must(t, os.WriteFile(path, p, 0o600))
	g.open(false)
	i := g.shelf.List()[0]
	if i.Whole || !strings.Contains(i.Why, "damaged") {
		t.Fatalf("told of as %+v", i)
	}
	got, err := g.exported(i.ID, true, nil)
	must(t, err)
	differ(t, got[:6*4096], want[:6*4096])
}

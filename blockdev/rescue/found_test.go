package rescue

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
)

// A large image is not read at a start: its promise ends there, for good.
func TestLargeImageIsNotReadAtAStart(t *testing.T) { // R19, R28
	g, want, id := rescued(t, 20, block(3, 4))
	must(t, g.shelf.Stop())
	path := filepath.Join(g.room.Path, id, "image")
	was, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, maxResumed+1))
	g.open(false)
	if i := g.shelf.List()[0]; i.Whole || !strings.Contains(i.Why, "67108864") {
		t.Fatalf("told of as %+v", i)
	}
	g.write(block(20, 4)) // nothing keeps it
	must(t, g.shelf.Stop())
	must(t, os.Truncate(path, was.Size()))
	g.open(false)
	if _, err := g.exported(id, false, nil); !errors.Is(err, ErrNotWhole) {
		t.Fatalf("read: %v", err)
	}
	got, err := g.exported(id, true, nil)
	must(t, err)
	differ(t, got[:7*4096], want[:7*4096])
}

// What somebody has put among the images is left, at a start and when an image is deleted.
func TestOnlyWhatIsOursIsRemoved(t *testing.T) {
	g, _, id := rescued(t, 21, block(3, 4))
	aside, renamed := filepath.Join(g.room.Path, "saved", "volume.img"), filepath.Join(g.room.Path, id, "image.bak")
	must(t, g.shelf.Stop())
	must(t, os.Mkdir(filepath.Dir(aside), 0o700))
	must(t, os.WriteFile(aside, []byte("all that is left"), 0o600))
	must(t, os.Rename(filepath.Join(g.room.Path, id, "image"), renamed))
	must(t, os.Mkdir(filepath.Join(g.room.Path, "alpha-e9"), 0o700)) // of a crash: ours
	g.open(false)
	if all := g.shelf.List(); len(all) != 0 {
		t.Errorf("listed: %+v", all)
	}
	if len(g.left) != 2 || !strings.Contains(g.left[0]+g.left[1], "volume.img") || !strings.Contains(g.left[0]+g.left[1], "image.bak") {
		t.Errorf("told of as left: %q", g.left)
	}
	for _, path := range []string{aside, renamed} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(g.room.Path, "alpha-e9")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is not removed: %v", err)
	}
	g.write(block(20, 4)) // nothing keeps it
	must(t, g.shelf.Stop())
	must(t, os.Rename(renamed, filepath.Join(g.room.Path, id, "image"))) // put back
	g.open(false)
	if all := g.shelf.List(); len(all) != 1 || all[0].Whole {
		t.Fatalf("listed: %+v", all)
	}
	beside := filepath.Join(g.room.Path, id, "notes")
	must(t, os.WriteFile(beside, nil, 0o600))
	if err := g.shelf.Remove(id); !errors.Is(err, ErrOthers) || !strings.Contains(err.Error(), beside) {
		t.Errorf("deleted: %v", err)
	}
	if _, err := os.Stat(beside); err != nil || len(g.shelf.List()) != 0 {
		t.Errorf("%v; listed: %+v", err, g.shelf.List())
	}
	must(t, g.shelf.Begin(testPoint, 5)) // not beside the label that stays
	g.resync(block(9, 1))
	g.open(true)
	if a, _ := g.shelf.Live(); a == nil {
		t.Error("the way back of the next resync is taken for an image that was closed")
	}
}

// An image of another volume is shown as such and never read over this one, nor written to.
func TestImageOfAnotherVolumeIsNeverRead(t *testing.T) { // R19, R22
	for name, change := range map[string]func(*undo.Binding){
		"cluster": func(b *undo.Binding) { b.Cluster = meta.ID{77} },
		"volume":  func(b *undo.Binding) { b.Volume = meta.ID{77} },
		"size":    func(b *undo.Binding) { b.Size = testVolume / 2 },
	} {
		for _, closed := range []bool{true, false} {
			g := newRig(t, 22)
			must(t, g.shelf.Begin(testPoint, 5))
			g.resync(block(4, 2))
			if closed {
				_, err := g.shelf.Finish(time.Now())
				must(t, err)
			}
			must(t, g.shelf.Stop())
			path := filepath.Join(g.room.Path, "alpha-e5-1", "image")
			before, err := os.ReadFile(path)
			must(t, err)
			b := undo.Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "alpha", Size: testVolume, Attachment: g.attach, Epoch: 9}
			change(&b)
			for range 2 { // and at the next start
				s, err := Open(Config{Room: g.room, Patience: time.Minute, Binding: b}, g.dev, !closed)
				must(t, err)
				g.shelf = s
				i := s.List()
				if a, _ := s.Live(); a != nil || len(i) != 1 || i[0].Whole || !strings.Contains(i[0].Why, "another volume") {
					t.Fatalf("%s, closed %v: told of as %+v", name, closed, i)
				}
				for _, c := range []Cursor{{}, {Image: true, At: undo.Start}} {
					if _, err := s.Read("alpha-e5-1", c, true); !errors.Is(err, ErrForeign) {
						t.Errorf("%s, closed %v: read at %+v: %v", name, closed, c, err)
					}
				}
				must(t, s.Stop())
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
				t.Errorf("%s, closed %v: it was written to: %v", name, closed, err)
			}
			if _, err := g.room.Label("alpha-e5-1"); name != "size" && errors.Is(err, ErrNone) == closed {
				t.Errorf("%s, closed %v: its label: %v", name, closed, err)
			}
			if name != "size" { // back where it belongs
				g.open(!closed)
				a, _ := g.shelf.Live()
				if i := g.shelf.List(); len(i) != 1 || i[0].Whole != closed || (a != nil) == closed {
					t.Errorf("%s, closed %v: where it belongs it is told of as %+v", name, closed, i)
				}
			}
		}
	}
}

package rescue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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

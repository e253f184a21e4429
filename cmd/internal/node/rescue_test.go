package node

import (
	"path/filepath"
	"testing"
	"time"

	"hacluster/blockdev/deadline"
	"hacluster/blockdev/rescue"
	"hacluster/blockdev/undo"
)

// hanging is a Room that asks, in each operation, whether it is watched.
type hanging struct {
	*rescue.Dir
	ask func()
}

func (h hanging) Image(id string) undo.Place { return hangingPlace{h.Dir.Image(id), h.ask} }

func (h hanging) SetLabel(id string, p []byte) error { h.ask(); return h.Dir.SetLabel(id, p) }

func (h hanging) Remove(id string) error { h.ask(); return h.Dir.Remove(id) }

type hangingPlace struct {
	undo.Place
	ask func()
}

func (p hangingPlace) Create(head []byte) (undo.Store, error) {
	s, err := p.Place.Create(head)
	return hangingStore{s, p.ask}, err
}

type hangingStore struct {
	undo.Store
	ask func()
}

func (s hangingStore) WriteAt(p []byte, off int64) (int, error) {
	s.ask()
	return s.Store.WriteAt(p, off)
}

func (s hangingStore) Flush() error { s.ask(); return s.Store.Flush() }

// What hangs in the image of a resync that goes on ends the node; in one that is closed it does not.
func TestOnlyTheImageOfAResyncThatGoesOnIsWatched(t *testing.T) { // R26
	disk := deadline.New()
	watched, asked := false, 0
	ask := func() {
		asked++
		var err error
		for range deadline.Ticks + 1 { // it hangs for longer than the deadline
			err = disk.Tick(time.Second)
		}
		watched = err != nil
	}
	room := &watchedRoom{Room: hanging{&rescue.Dir{Path: filepath.Join(t.TempDir(), "rescue")}, ask}, disk: disk, op: "rescue image"}
	expect := func(what string, want bool) {
		t.Helper()
		if asked == 0 || watched != want {
			t.Errorf("%s: watched %v (asked %d times), want %v", what, watched, asked, want)
		}
		asked = 0
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a name that is free may be used again
		must(room.Make("alpha-e5"))
		s, err := room.Image("alpha-e5").Create([]byte("head"))
		must(err)
		_, err = s.WriteAt([]byte("old"), 4)
		must(err)
		expect("write while the resync goes on", true)
		must(s.Flush())
		expect("flush while the resync goes on", true)
		must(room.SetLabel("alpha-e5", []byte("label")))
		expect("label", true)
		room.Closed("alpha-e5")
		_, err = s.WriteAt([]byte("kept"), 7)
		must(err)
		expect("write when it is closed", false)
		must(s.Flush())
		expect("flush at the end", false)
		must(s.Close())
		must(room.SetLabel("alpha-e5", []byte("label")))
		expect("label at the end", false)
		must(room.Remove("alpha-e5"))
		expect("removal", false)
	}
}

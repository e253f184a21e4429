package unflushed

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func (s *Store) names(t *testing.T) (out []string) {
	t.Helper()
	if err := s.Walk(func(_ *Node, path string) error { out = append(out, path); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// put writes a whole file and flushes it if wanted.
func (s *Store) put(t *testing.T, dir *Node, name, word string, flush bool) *Node {
	t.Helper()
	n, err := s.Create(dir, name, unix.S_IFREG|0o600)
	if err == nil {
		err = s.Use(n)
	}
	if err == nil {
		err = s.WriteAt(n, []byte(word), 0, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	if flush {
		s.Sync(n)
	}
	s.Leave(n)
	return n
}

func (s *Store) drop(t *testing.T) Cut {
	t.Helper()
	cut, err := s.PowerCut(Drop, 1)
	if err != nil {
		t.Fatal(err)
	}
	return cut
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Names are durable after a flush of their directory only; of a lenient store, after any flush.
func TestNamesNeedAFlushOfTheirDirectory(t *testing.T) {
	for _, lenient := range []bool{false, true} {
		s := store(t, Config{Lenient: lenient})
		s.put(t, s.root, "a", "1", true)
		s.SyncDir(s.root)
		s.put(t, s.root, "b", "2", true)
		cut := s.drop(t)
		want := []string{"/a"}
		if lenient {
			want = []string{"/a", "/b"}
		}
		if got := s.names(t); !slices.Equal(got, want) || string(s.content(t, "a")) != "1" {
			t.Errorf("lenient %t: %v is left, %+v", lenient, got, cut)
		}
	}
}

// The usual replacement of a file: write beside, flush, rename, flush the directory. Whoever leaves a flush out loses.
func TestReplacingAFileByRename(t *testing.T) {
	for _, c := range []struct {
		name               string
		flush, dir, strict bool
		want               string
	}{
		{"both flushes", true, true, true, "new"},
		{"no flush of the directory", true, false, true, "old"},
		{"no flush of the file", false, true, true, ""},
		{"no flush of the file, lenient", false, true, false, "new"},
		{"none, lenient", false, false, false, "old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := store(t, Config{Lenient: !c.strict})
			s.put(t, s.root, "f", "old", true)
			s.SyncDir(s.root)
			s.put(t, s.root, "f.new", "new", c.flush)
			check(t, s.Rename(s.root, "f.new", s.root, "f", true))
			if got := string(s.content(t, "f")); got != "new" {
				t.Fatalf("before the cut it holds %q", got)
			}
			if c.dir {
				s.SyncDir(s.root)
			}
			s.drop(t)
			if got := string(s.content(t, "f")); got != c.want || !slices.Equal(s.names(t), []string{"/f"}) {
				t.Errorf("it holds %q, want %q; names %v", got, c.want, s.names(t))
			}
		})
	}
}

// Removed and not flushed comes back, with its content; what was in a directory that is lost is lost with it.
func TestRemovedFilesComeBackAndLostDirectoriesTakeTheirFilesAlong(t *testing.T) {
	s := store(t, Config{})
	s.put(t, s.root, "a", "1", true)
	s.SyncDir(s.root)
	check(t, s.Unlink(s.root, "a"))
	dir, err := s.Mkdir(s.root, "d", 0o700)
	check(t, err)
	s.put(t, dir, "x", "2", true)
	s.SyncDir(dir) // its own name is not durable
	if err := s.Rmdir(s.root, "d"); err != unix.ENOTEMPTY {
		t.Errorf("a directory with a file in it was removed: %v", err)
	}
	if cut := s.drop(t); cut.LostNames != 2 {
		t.Errorf("%+v", cut)
	}
	if got := s.names(t); !slices.Equal(got, []string{"/a"}) || string(s.content(t, "a")) != "1" {
		t.Errorf("%v is left", got)
	}
}

// A move between directories is not torn: flushing where it went makes durable what it depends on.
func TestAMoveIsWhole(t *testing.T) {
	s := store(t, Config{})
	a, err := s.Mkdir(s.root, "a", 0o700)
	check(t, err)
	b, err := s.Mkdir(s.root, "b", 0o700)
	check(t, err)
	s.SyncDir(s.root)
	s.put(t, a, "x", "1", true)
	check(t, s.Rename(a, "x", b, "y", true))
	s.SyncDir(b)
	s.drop(t)
	if got := s.names(t); !slices.Equal(got, []string{"/b/y"}) {
		t.Errorf("%v is left", got)
	}
}

// Names are lost from one change on: in some seeds all, in some none, in some a part.
func TestNamesAreLostFromOneChangeOn(t *testing.T) {
	seen := map[int]int{}
	for seed := range uint64(40) {
		for _, mode := range []Mode{Random, Torn} {
			s := store(t, Config{})
			for _, name := range []string{"1", "2", "3"} {
				s.put(t, s.root, name, name, true)
			}
			if _, err := s.PowerCut(mode, seed); err != nil {
				t.Fatal(err)
			}
			got := s.names(t)
			seen[len(got)]++
			if !slices.Equal(got, []string{"/1", "/2", "/3"}[:len(got)]) {
				t.Errorf("%v is left", got)
			}
		}
	}
	if len(seen) < 3 {
		t.Errorf("the number of names left was %v", seen)
	}
}

// A file that is open lives on without its name, and its name may be used again.
func TestUnlinkedWhileOpen(t *testing.T) {
	s := store(t, Config{})
	n := s.put(t, s.root, "a", "1", true)
	check(t, s.Use(n))
	check(t, s.Unlink(s.root, "a"))
	s.SyncDir(s.root)
	s.put(t, s.root, "a", "2", true)
	s.SyncDir(s.root)
	p := make([]byte, 1)
	if _, err := s.ReadAt(n, p, 0); err != nil || p[0] != '1' {
		t.Errorf("it reads %q, %v", p, err)
	}
	s.Leave(n)
	s.drop(t)
	if got := string(s.content(t, "a")); got != "2" {
		t.Errorf("the name holds %q", got)
	}
}

// A directory whose removal is durable takes what happened in it along, flushed or not.
func TestADurablyRemovedDirectoryStaysRemoved(t *testing.T) {
	for seed := range uint64(10) {
		s := store(t, Config{})
		d, err := s.Mkdir(s.root, "d", 0o700)
		check(t, err)
		s.put(t, d, "x", "1", true)
		s.SyncDir(d)
		s.SyncDir(s.root)
		check(t, s.Unlink(d, "x"))
		check(t, s.Rmdir(s.root, "d"))
		s.SyncDir(s.root)
		s.put(t, s.root, "y", "2", true)
		if _, err := s.PowerCut([]Mode{Drop, Random, Torn}[seed%3], seed); err != nil {
			t.Fatal(err)
		}
		if got := s.names(t); len(got) > 1 || len(got) == 1 && got[0] != "/y" {
			t.Errorf("%v is left", got)
		}
	}
}

// A directory is moved into a new one and only the new one is flushed, not the directory that has its name: what was moved is there
// after a cut, and what happened in it before and was not flushed is taken back in there.
func TestMovedDirectoriesKeepTheDirectoriesThatTheyWereMovedInto(t *testing.T) {
	s := store(t, Config{})
	mkdir := func(in *Node, name string) *Node {
		n, err := s.Mkdir(in, name, 0o700)
		check(t, err)
		return n
	}
	a := mkdir(s.root, "a")
	p := mkdir(a, "p")
	s.put(t, p, "f", "1", true)
	for _, dir := range []*Node{s.root, a, p} {
		s.SyncDir(dir)
	}
	check(t, s.Unlink(p, "f"))
	b := mkdir(mkdir(s.root, "b"), "b")
	check(t, s.Rename(a, "p", b, "p", true))
	s.SyncDir(a)
	if cut := s.drop(t); cut.LostNames != 1 {
		t.Errorf("%+v", cut)
	}
	if got := s.names(t); !slices.Equal(got, []string{"/b/b/p/f"}) {
		t.Errorf("%v is left", got)
	}
}

// Whatever is made, moved, removed and flushed: a cut can take back what it may lose.
func TestNamesAreTakenBackAfterAnyHistory(t *testing.T) {
	for seed := range uint64(250) {
		s := store(t, Config{Lenient: seed%8 == 0})
		rng := rand.New(rand.NewPCG(seed, 5))
		s.wander(rng)
		_, err := s.PowerCut([]Mode{Drop, Random, Torn}[rng.IntN(3)], seed) // panics when it cannot
		check(t, err)
	}
}

// wander changes and flushes names at random. That some of it is refused is a part of it.
func (s *Store) wander(rng *rand.Rand) {
	dirs := []*Node{s.root}
	any := func() *Node {
		for {
			if d := dirs[rng.IntN(len(dirs))]; !d.gone && d.grave == "" { // the kernel lets nobody into one that was removed
				return d
			}
		}
	}
	for range 50 {
		dir, name := any(), string(rune('a'+rng.IntN(3)))
		switch rng.IntN(7) {
		case 0, 1:
			if n, err := s.Mkdir(dir, name, 0o700); err == nil {
				dirs = append(dirs, n)
			}
		case 2:
			_, _ = s.Create(dir, name, unix.S_IFREG|0o600)
		case 3:
			_ = s.Unlink(dir, name)
		case 4:
			_ = s.Rmdir(dir, name)
		case 5:
			_ = s.Rename(dir, name, any(), string(rune('a'+rng.IntN(3))), true)
		case 6:
			s.SyncDir(dir)
		}
	}
}

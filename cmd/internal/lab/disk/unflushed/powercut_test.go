package unflushed

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func store(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Store) file(t *testing.T, name string) *Node {
	t.Helper()
	n, err := s.Create(s.root, name, unix.S_IFREG|0o600)
	if err == nil {
		err = s.Use(n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *Store) content(t *testing.T, name string) []byte {
	t.Helper()
	n, err := s.Lookup(s.root, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.belowLocked(n))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// model says what each sector of a file may hold after a power cut: what was durable, or anything written since.
type model struct{ may [][]string }

func (m *model) write(off, sectors int, word string, durably bool) {
	for at := off; at < off+sectors; at++ {
		if durably {
			m.may[at] = nil
		}
		m.may[at] = append(m.may[at], word)
	}
}

func (m *model) flush() {
	for at := range m.may {
		m.may[at] = m.may[at][len(m.may[at])-1:]
	}
}

func sector(word string) []byte {
	p := make([]byte, SectorSize)
	if word != "" {
		for i := range p {
			p[i] = word[i%len(word)]
		}
	}
	return p
}

// A writer with known flush points: what must be there is there, in every mode and for every seed; what may be lost is
// lost in some and kept in some.
func TestPowerCutLosesOnlyWhatWasNotFlushed(t *testing.T) {
	const sectors, rounds = 64, 150
	for _, mode := range []Mode{Drop, Random, Torn} {
		t.Run(string(mode), func(t *testing.T) {
			lost, kept := 0, 0
			for seed := range uint64(rounds) {
				s := store(t, Config{})
				n := s.file(t, "f")
				m := model{may: make([][]string, sectors)}
				if err := s.Truncate(n, sectors*SectorSize); err != nil {
					t.Fatal(err)
				}
				m.write(0, sectors, "", true)
				s.Sync(n)
				s.SyncDir(s.root)
				rng := rand.New(rand.NewPCG(seed, 1))
				for i := range 30 {
					script(t, s, n, &m, rng, i)
				}
				s.Leave(n)
				if _, err := s.PowerCut(mode, seed); err != nil {
					t.Fatal(err)
				}
				l, k := m.check(t, s.content(t, "f"), mode, seed)
				lost, kept = lost+l, kept+k
			}
			if lost == 0 || kept == 0 && mode != Drop || kept != 0 && mode == Drop {
				t.Errorf("of the sectors at risk %d were lost and %d kept", lost, kept)
			}
		})
	}
}

// script does one step of the writer.
func script(t *testing.T, s *Store, n *Node, m *model, rng *rand.Rand, i int) {
	t.Helper()
	count := 1 + rng.IntN(8)
	off := rng.IntN(len(m.may) - count + 1)
	var err error
	switch word := fmt.Sprintf("%04d", i); rng.IntN(8) {
	case 0:
		s.Sync(n)
		m.flush()
	case 1:
		err = s.WriteAt(n, bytes.Repeat(sector(word), count), int64(off)*SectorSize, true)
		m.write(off, count, word, true)
	case 2:
		err = s.Allocate(n, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off)*SectorSize, int64(count)*SectorSize)
		m.write(off, count, "", false)
	default:
		err = s.WriteAt(n, bytes.Repeat(sector(word), count), int64(off)*SectorSize, false)
		m.write(off, count, word, false)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// check counts the sectors at risk that were lost and kept.
func (m *model) check(t *testing.T, content []byte, mode Mode, seed uint64) (lost, kept int) {
	t.Helper()
	if len(content) != len(m.may)*SectorSize {
		t.Fatalf("seed %d: %d bytes are left", seed, len(content))
	}
	for at, may := range m.may {
		got := content[at*SectorSize:][:SectorSize]
		i := slices.IndexFunc(may, func(w string) bool { return bytes.Equal(sector(w), got) })
		if i < 0 || mode == Drop && i != 0 && !bytes.Equal(sector(may[0]), got) {
			t.Fatalf("%s, seed %d: sector %d holds %q, it may hold %q", mode, seed, at, got[:8], may)
		}
		if last := len(may) - 1; last > 0 && may[last] != may[0] {
			if i == last {
				kept++
			} else {
				lost++
			}
		}
	}
	return lost, kept
}

// The same seed does the same.
func TestPowerCutIsDeterministic(t *testing.T) {
	for _, mode := range []Mode{Random, Torn} {
		var before []byte
		for range 2 {
			s := store(t, Config{})
			n := s.file(t, "f")
			s.SyncDir(s.root)
			for i := range 20 {
				if err := s.WriteAt(n, sector(fmt.Sprint(i)), int64(i%7)*SectorSize, false); err != nil {
					t.Fatal(err)
				}
			}
			s.Leave(n)
			if _, err := s.PowerCut(mode, 42); err != nil {
				t.Fatal(err)
			}
			got := s.content(t, "f")
			if before != nil && !bytes.Equal(before, got) {
				t.Errorf("%s: one seed, two results", mode)
			}
			before = append([]byte{}, got...)
		}
	}
}

// A flush that failed has lost what it should have carried: a later one that succeeds does not save it.
func TestAFailedFlushIsNotMadeGoodByALaterOne(t *testing.T) {
	s := store(t, Config{})
	n := s.file(t, "f")
	s.SyncDir(s.root)
	write := func(at int64, word string) {
		if err := s.WriteAt(n, sector(word), at*SectorSize, false); err != nil {
			t.Fatal(err)
		}
	}
	write(0, "old")
	write(1, "old")
	s.Sync(n)
	write(0, "lost")
	write(1, "lost")
	s.FailSync(n)
	write(1, "new")
	s.Sync(n)
	s.Leave(n)
	if _, err := s.PowerCut(Drop, 1); err != nil {
		t.Fatal(err)
	}
	if got := s.content(t, "f"); !bytes.Equal(got, append(sector("old"), sector("new")...)) {
		t.Errorf("it holds %q and %q", got[:4], got[SectorSize:][:4])
	}
}

// What the cache cannot hold goes to the disk, oldest first.
func TestCacheIsBounded(t *testing.T) {
	s := store(t, Config{Cache: 64 << 10})
	n := s.file(t, "f")
	s.SyncDir(s.root)
	for round := range 2 {
		for i := range int64(64) {
			if err := s.WriteAt(n, bytes.Repeat([]byte{byte(round + 1)}, 4096), i*4096, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if c := s.Counts(); c.Evicted == 0 || c.UnflushedHeld > 64<<10 {
		t.Errorf("%+v", c)
	}
	s.Leave(n)
	if _, err := s.PowerCut(Drop, 1); err != nil {
		t.Fatal(err)
	}
	got := s.content(t, "f")
	if len(got) != 64*4096 || got[0] != 2 || got[len(got)-1] != 1 {
		t.Errorf("%d bytes, %d first, %d last", len(got), got[0], got[len(got)-1])
	}
}

func TestPowerCutIsRefusedWhileAFileIsOpen(t *testing.T) {
	s := store(t, Config{})
	s.file(t, "f")
	if _, err := s.PowerCut(Drop, 1); err == nil {
		t.Error("the power was cut under an open file")
	}
	if _, err := store(t, Config{}).PowerCut("twice", 1); err != nil {
		t.Errorf("nothing to lose: %v", err)
	}
}

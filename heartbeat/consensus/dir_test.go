package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"hacluster/blockdev/deadline"
)

// fill starts a lone voter, gives it n commands, and shuts it down. With snapshots, every few of them are followed by
// a snapshot.
func fill(t *testing.T, n int, snapshots bool) *member {
	t.Helper()
	m := newMember(t, "a")
	m.cfg.SnapshotInterval = time.Hour
	m.start(t)
	if err := m.Bootstrap([]Server{m.server()}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		propose(t, fmt.Sprintf("command %d", i), m)
		if snapshots && i%10 == 9 {
			if err := m.node.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.shut(t)
	return m
}

// reopen opens m's directory and says what came of it.
func reopen(t *testing.T, m *member) (*Raft, error) {
	t.Helper()
	cfg := m.cfg
	cfg.Stream = listen(t, cfg.Address)
	m.journal = &journal{}
	cfg.Machine = m.journal
	r, err := Open(cfg)
	if err == nil {
		t.Cleanup(func() { _ = r.Close() })
	}
	return r, err
}

func state(m *member, parts ...string) string {
	return filepath.Join(append([]string{m.cfg.Dir, "state"}, parts...)...)
}

// only returns the one file that matches.
func only(t *testing.T, pattern string) string {
	t.Helper()
	found, _ := filepath.Glob(pattern)
	if len(found) != 1 {
		t.Fatalf("%s matches %v", pattern, found)
	}
	return found[0]
}

// edit changes a file's content.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// flip damages the bytes of the last place where what stands.
func flip(t *testing.T, path, what string) {
	t.Helper()
	edit(t, path, func(b []byte) []byte {
		i := bytes.LastIndex(b, []byte(what))
		if i < 0 {
			t.Fatalf("%q is not in %s", what, path)
		}
		b[i] ^= 0x20
		return b
	})
}

// faults.md M67: damaged or deleted state is refused, with the file and the remedy; it never passes for an empty one.
func TestM67DamagedStateIsRefused(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, m *member){
		"log file deleted": func(t *testing.T, m *member) { remove(t, only(t, state(m, "log", "*.wal"))) },
		"log file emptied": func(t *testing.T, m *member) {
			edit(t, only(t, state(m, "log", "*.wal")), func(b []byte) []byte { return nil })
		},
		"log file zeroed": func(t *testing.T, m *member) {
			edit(t, only(t, state(m, "log", "*.wal")), func(b []byte) []byte { return make([]byte, len(b)) })
		},
		"log cut short":         func(t *testing.T, m *member) { cutLog(t, m, "command 17") },
		"entry rotten":          func(t *testing.T, m *member) { flip(t, only(t, state(m, "log", "*.wal")), "command 9") },
		"last entry rotten":     func(t *testing.T, m *member) { flip(t, only(t, state(m, "log", "*.wal")), "command 19") },
		"log directory deleted": func(t *testing.T, m *member) { remove(t, state(m, "log")) },
		"wal-meta.db deleted":   func(t *testing.T, m *member) { remove(t, state(m, "log", "wal-meta.db")) },
		"wal-meta.db emptied": func(t *testing.T, m *member) {
			edit(t, state(m, "log", "wal-meta.db"), func([]byte) []byte { return nil })
		},
		"wal-meta.db cut short": func(t *testing.T, m *member) {
			edit(t, state(m, "log", "wal-meta.db"), func(b []byte) []byte { return b[:2*4096] })
		},
		"wal-meta.db zeroed": func(t *testing.T, m *member) {
			edit(t, state(m, "log", "wal-meta.db"), func(b []byte) []byte { return make([]byte, len(b)) })
		},
		"wal-meta.db pages zeroed": func(t *testing.T, m *member) {
			edit(t, state(m, "log", "wal-meta.db"), func(b []byte) []byte { clear(b[2*4096:]); return b })
		},
		"term went back": func(t *testing.T, m *member) {
			edit(t, state(m, "mark"), func(b []byte) []byte { return encodeMark(point{1, 99}) })
		},
		"mark deleted": func(t *testing.T, m *member) { remove(t, state(m, "mark")) },
		"mark damaged": func(t *testing.T, m *member) {
			edit(t, state(m, "mark"), func(b []byte) []byte { b[9] ^= 1; return b })
		},
		"identity deleted": func(t *testing.T, m *member) { remove(t, state(m, "identity")) },
		"identity damaged": func(t *testing.T, m *member) {
			edit(t, state(m, "identity"), func(b []byte) []byte { b[12] ^= 1; return b })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := fill(t, 20, false)
			if ok, err := HasState(m.cfg.Dir); !ok || err != nil {
				t.Fatalf("before: HasState = %v, %v", ok, err)
			}
			damage(t, m)
			_, hasErr := HasState(m.cfg.Dir)
			_, openErr := reopen(t, m)
			for what, err := range map[string]error{"HasState": hasErr, "Open": openErr} {
				mustFail(t, err, ErrCorrupt)
				for _, want := range []string{m.cfg.Dir, "remove the node from the cluster"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s: %q is missing in: %v", what, want, err)
					}
				}
			}
		})
	}
}

// cutLog zeroes the log from the entry before what on, as if nothing had been written there.
func cutLog(t *testing.T, m *member, what string) {
	edit(t, only(t, state(m, "log", "*.wal")), func(b []byte) []byte {
		i := bytes.LastIndex(b, []byte(what))
		clear(b[i-64:])
		return b
	})
}

func TestUnusedDirectoryHasNoState(t *testing.T) {
	t.Parallel()
	m := newMember(t, "a")
	if ok, err := HasState(m.cfg.Dir); ok || err != nil {
		t.Errorf("missing directory: %v, %v", ok, err)
	}
	m.start(t)
	_, err := HasState(m.cfg.Dir)
	mustFail(t, err, ErrInUse)
	m.shut(t)
	if ok, err := HasState(m.cfg.Dir); ok || err != nil {
		t.Errorf("opened, but never used: %v, %v", ok, err)
	}
	if err := os.MkdirAll(filepath.Join(m.cfg.Dir, "making", "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	remove(t, state(m))
	if ok, err := HasState(m.cfg.Dir); ok || err != nil {
		t.Errorf("crashed while it was made: %v, %v", ok, err)
	}
	m.start(t)
	m.shut(t)
	remove(t, state(m))
	if err := os.WriteFile(filepath.Join(m.cfg.Dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := HasState(m.cfg.Dir); err == nil {
		t.Error("a directory with foreign files was taken")
	}
}

// faults.md M69
func TestM69DirectoryOfAnotherNodeIsRefused(t *testing.T) {
	t.Parallel()
	m := fill(t, 1, false)
	m.cfg.ID = "b-1"
	_, err := reopen(t, m)
	mustFail(t, err, ErrForeign)
	for _, want := range []string{"a-1", "b-1", m.cfg.Dir} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestDirectoryInUseIsRefused(t *testing.T) {
	t.Parallel()
	m := newMember(t, "a")
	m.start(t)
	cfg := m.cfg
	cfg.Stream, cfg.Machine = listen(t, "127.0.0.1:0"), &journal{}
	_, err := Open(cfg)
	mustFail(t, err, ErrInUse)
}

// A process that is being started has a copy of every descriptor until it is another program.
func TestClosedDirectoryIsFreeWhileAProcessIsBeingStarted(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	d, err := lockDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(d.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	d, err = lockDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	_ = d.close()
}

func TestDamagedDirectoryIsUntouched(t *testing.T) {
	t.Parallel()
	m := fill(t, 5, false)
	flip(t, only(t, state(m, "log", "*.wal")), "command 2")
	before := listing(t, m.cfg.Dir)
	_, err := reopen(t, m)
	mustFail(t, err, ErrCorrupt)
	if after := listing(t, m.cfg.Dir); !slices.Equal(before, after) {
		t.Errorf("files before %v, after %v", before, after)
	}
}

func listing(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// faults.md M68: an older snapshot counts only if the log leads from it to where the damaged one ended.
func TestM68DamagedSnapshot(t *testing.T) {
	t.Parallel()
	snapshotsOf := func(t *testing.T, m *member) []string {
		found, _ := filepath.Glob(state(m, "snapshots", "*-*-*"))
		if len(found) != keepSnaps {
			t.Fatalf("snapshots: %v", found)
		}
		return found // in order of term, index: single digits do not occur beside double ones in these tests
	}
	damages := map[string]func(t *testing.T, snapshot string){
		"content rotten":  func(t *testing.T, s string) { flip(t, filepath.Join(s, "state.bin"), "command 0") },
		"content missing": func(t *testing.T, s string) { remove(t, filepath.Join(s, "state.bin")) },
		"meta.json cut": func(t *testing.T, s string) {
			edit(t, filepath.Join(s, "meta.json"), func(b []byte) []byte { return b[:20] })
		},
		"meta.json missing": func(t *testing.T, s string) { remove(t, filepath.Join(s, "meta.json")) },
		"members rotten":    func(t *testing.T, s string) { flip(t, filepath.Join(s, "meta.json"), "a-1") },
		"whole dir. emptied": func(t *testing.T, s string) {
			remove(t, filepath.Join(s, "state.bin"))
			remove(t, filepath.Join(s, "meta.json"))
		},
	}
	for name, damage := range damages {
		t.Run("newest, log whole: "+name, func(t *testing.T) {
			t.Parallel()
			m := fill(t, 35, true)
			damage(t, snapshotsOf(t, m)[1])
			m.start(t)
			eventually(t, "all commands", func() bool { return len(m.journal.all()) == 35 })
			if _, err := os.Stat(state(m, "damaged")); err != nil {
				t.Errorf("the damaged snapshot was not set aside: %v", err)
			}
			propose(t, "goes on", m)
		})
	}
	t.Run("all, log whole from the start", func(t *testing.T) {
		t.Parallel()
		m := fill(t, 35, true)
		for _, s := range snapshotsOf(t, m) {
			damages["content rotten"](t, s)
		}
		m.start(t)
		eventually(t, "all commands", func() bool { return len(m.journal.all()) == 35 })
	})
	t.Run("newest, log cut behind it", func(t *testing.T) {
		t.Parallel()
		m := fill(t, 35, true)
		truncate(t, m, func(_, last uint64) (from, to uint64) { return 1, last - 2 })
		damages["content rotten"](t, snapshotsOf(t, m)[1])
		_, err := reopen(t, m)
		mustFail(t, err, ErrCorrupt)
	})
	t.Run("newest, log ends before it", func(t *testing.T) {
		t.Parallel()
		m := fill(t, 30, true)
		truncate(t, m, func(_, last uint64) (from, to uint64) { return last - 1, last })
		damages["content rotten"](t, snapshotsOf(t, m)[1])
		_, err := reopen(t, m)
		mustFail(t, err, ErrCorrupt)
	})
	t.Run("none, log ends before it", func(t *testing.T) { // a crash after a leader's snapshot had come
		t.Parallel()
		m := fill(t, 30, true)
		truncate(t, m, func(_, last uint64) (from, to uint64) { return last - 4, last })
		m.start(t)
		propose(t, "goes on", m)
		if got := len(m.journal.all()); got != 31 {
			t.Errorf("%d commands", got)
		}
		m.shut(t)
		m.start(t)
		propose(t, "and on", m)
	})
	t.Run("snapshots deleted, log cut", func(t *testing.T) {
		t.Parallel()
		m := fill(t, 35, true)
		truncate(t, m, func(_, last uint64) (from, to uint64) { return 1, last - 2 })
		for _, s := range snapshotsOf(t, m) {
			remove(t, s)
		}
		_, err := reopen(t, m)
		mustFail(t, err, ErrCorrupt)
	})
	t.Run("content that the machine refuses", func(t *testing.T) {
		t.Parallel()
		m := fill(t, 30, true)
		cfg := m.cfg
		cfg.Stream, cfg.Machine = listen(t, cfg.Address), &picky{}
		_, err := Open(cfg)
		mustFail(t, err, ErrCorrupt)
	})
}

// picky is a state machine that takes no snapshot.
type picky struct{ journal }

func (p *picky) Restore([]byte) error { return fmt.Errorf("unknown version 7, this program knows 1") }

// truncate removes a range from the log behind raft's back, as compaction would.
func truncate(t *testing.T, m *member, choose func(first, last uint64) (from, to uint64)) {
	t.Helper()
	d, err := lockDirectory(m.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := d.openStores(newBridge(discard)); err != nil {
		t.Fatal(err)
	}
	s := &store{under: d.logs, mark: d.mark, watch: deadline.New(), fail: func(err error) { t.Error(err) }}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if err := s.DeleteRange(choose(first, last)); err != nil {
		t.Fatal(err)
	}
}

func TestChecksumsOfEntriesStayOnThisNode(t *testing.T) {
	t.Parallel()
	s := summed{raft.NewInmemStore()}
	in := &raft.Log{Index: 1, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext")}
	if err := s.StoreLog(in); err != nil {
		t.Fatal(err)
	}
	var out raft.Log
	if err := s.GetLog(1, &out); err != nil || string(out.Extensions) != "ext" || string(in.Extensions) != "ext" {
		t.Errorf("stored %+v, read %+v, %v", in, out, err)
	}
	var raw raft.Log
	for name, change := range map[string]func(l *raft.Log){
		"data":       func(l *raft.Log) { l.Data = []byte("dbta") },
		"term":       func(l *raft.Log) { l.Term++ },
		"index":      func(l *raft.Log) { l.Index++ },
		"type":       func(l *raft.Log) { l.Type = raft.LogNoop },
		"extensions": func(l *raft.Log) { l.Extensions = append([]byte("exu"), l.Extensions[3:]...) },
		"no sum":     func(l *raft.Log) { l.Extensions = nil },
	} {
		if err := s.backend.GetLog(1, &raw); err != nil {
			t.Fatal(err)
		}
		bad := raw
		change(&bad)
		other := raft.NewInmemStore()
		if err := other.StoreLog(&bad); err != nil {
			t.Fatal(err)
		}
		if err := (summed{other}).GetLog(bad.Index, &out); name != "index" {
			mustFail(t, err, ErrCorrupt)
		} else if err == nil {
			t.Error("an entry at another index passed")
		}
	}
}

func TestChecksumsOfTermAndVote(t *testing.T) {
	t.Parallel()
	under := raft.NewInmemStore()
	s := summed{under}
	if v, err := s.GetUint64([]byte("CurrentTerm")); v != 0 || err != nil && err.Error() != "not found" {
		t.Errorf("never set: %d, %v", v, err)
	}
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 7), s.Set([]byte("LastVoteCand"), []byte("b"))); err != nil {
		t.Fatal(err)
	}
	term, err := s.GetUint64([]byte("CurrentTerm"))
	vote, err2 := s.Get([]byte("LastVoteCand"))
	if term != 7 || string(vote) != "b" || err != nil || err2 != nil {
		t.Errorf("term %d, vote %q, %v, %v", term, vote, err, err2)
	}
	for _, key := range []string{"CurrentTerm", "LastVoteCand"} {
		raw, _ := under.Get([]byte(key))
		raw[0] ^= 1
		_, err := s.Get([]byte(key))
		mustFail(t, err, ErrCorrupt)
	}
	_, err = s.GetUint64([]byte("CurrentTerm"))
	mustFail(t, err, ErrCorrupt)
	// A value under another key is no value.
	raw, _ := under.Get([]byte("LastVoteCand"))
	raw[0] ^= 1
	if err := under.Set([]byte("CurrentTerm"), raw); err != nil {
		t.Fatal(err)
	}
	_, err = s.GetUint64([]byte("CurrentTerm"))
	mustFail(t, err, ErrCorrupt)
}

// The formats are pinned: a change breaks every existing directory and must come with a new version.
func TestFormatsAreAsInTestdata(t *testing.T) {
	members := raft.Configuration{Servers: []raft.Server{{ID: "a-1", Address: "10.0.0.1:7000"}, {ID: "b-1", Address: "10.0.0.2:7000", Suffrage: raft.Nonvoter}}}
	g := greeting("cluster")
	for name, got := range map[string][]byte{
		"mark.golden":     encodeMark(point{index: 0x1122334455667788, term: 9}),
		"identity.golden": encodeIdentity("alpha-3f2a"),
		"snapshot.golden": encodeSnapHead(1, 2, 3, members),
		"greeting.golden": g[:],
	} {
		path := filepath.Join("testdata", name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\n got %x\nwant %x", name, err, got, want)
		}
	}
}

func TestNewerFormatsAreRefusedWithBothVersions(t *testing.T) {
	m, i := encodeMark(point{}), encodeIdentity("a")
	m[7], i[7] = 2, 2
	_, markErr := decodeMark(m)
	_, identityErr := decodeIdentity(i)
	for _, err := range []error{markErr, identityErr} {
		if err == nil || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "knows 1") {
			t.Errorf("got %v", err)
		}
	}
}

func FuzzFileHeaders(f *testing.F) {
	f.Add(encodeMark(point{1, 2}))
	f.Add(encodeIdentity("alpha-1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodeMark(b); err == nil && !bytes.Equal(encodeMark(p)[:24], b[:24]) {
			t.Errorf("%x decodes to %+v", b, p)
		}
		if id, err := decodeIdentity(b); err == nil && int(binary.LittleEndian.Uint32(b[8:])) != len(id) {
			t.Errorf("%x decodes to %q", b, id)
		}
	})
}

package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hacluster/blockdev/deadline"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
)

func seenIn(t *testing.T, path string) map[string]control.Seen {
	t.Helper()
	b := newSeenBook()
	if err := b.load(path); err != nil {
		t.Fatal(err)
	}
	return b.all()
}

// R32: what a process remembered of a voter is there for the next one, and neither number ever goes back.
func TestVotersAreRememberedOverARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "voters")
	b := newSeenBook()
	b.note("c-1", control.Seen{Term: 7, Index: 900})
	b.note("c-1", control.Seen{Term: 6, Index: 1000})
	if err := b.save(path); err != nil {
		t.Fatal(err)
	}
	next := newSeenBook()
	if err := next.load(path); err != nil {
		t.Fatal(err)
	}
	next.note("c-1", control.Seen{Term: 3, Index: 5})
	if got := next.of("c-1"); got != (control.Seen{Term: 7, Index: 1000}) {
		t.Errorf("remembered %+v", got)
	}
}

// It is asked to be written at a new term and in steps of the index, not at every entry.
func TestVotersAreWrittenInSteps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "voters")
	b := newSeenBook()
	wanted := func() bool {
		select {
		case <-b.news:
			return true
		default:
			return false
		}
	}
	for i, c := range []struct {
		seen control.Seen
		want bool
	}{
		{control.Seen{Term: 1, Index: 1}, true}, {control.Seen{Term: 1, Index: 1 + seenStep/2}, false}, {control.Seen{Term: 1, Index: 1 + seenStep}, true},
		{control.Seen{Term: 1, Index: 2 + seenStep}, false}, {control.Seen{Term: 2, Index: 2}, true}, {control.Seen{Term: 2}, false},
	} {
		b.note("c", c.seen)
		if got := wanted(); got != c.want {
			t.Errorf("%d: %+v wants to be written: %t", i, c.seen, got)
		}
		if c.want {
			if err := b.save(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := seenIn(t, path)["c"]; got != (control.Seen{Term: 2, Index: 2 + seenStep}) {
		t.Errorf("on disk: %+v", got)
	}
}

// faults.md M57: whatever byte is damaged, the file is refused, and so is a short one; a crash before the renaming
// leaves the old one.
func TestDamagedMemoryOfTheVotersIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "voters")
	b := newSeenBook()
	b.note("c", control.Seen{Term: 1, Index: 1})
	if err := b.save(path); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if by, err := decodeSeen(bad); err == nil {
			t.Errorf("byte %d changed: read as %v", i, by)
		}
		if by, err := decodeSeen(good[:i]); err == nil {
			t.Errorf("cut at %d: read as %v", i, by)
		}
	}
	if err := os.WriteFile(path+".new", good[:10], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := seenIn(t, path)["c"].Term; got != 1 {
		t.Errorf("term %d", got)
	}
}

// R28: who makes names up does not make it grow, and voters that are gone are forgotten.
func TestMemoryOfTheVotersIsBounded(t *testing.T) {
	b := newSeenBook()
	b.note("a", control.Seen{Term: 1})
	b.note("", control.Seen{Term: 1})
	for i := range 1000 {
		b.note(fmt.Sprint(i), control.Seen{Term: 1})
	}
	if n := len(b.all()); n != maxSeen {
		t.Errorf("%d names", n)
	}
	b.forget(map[string]bool{"a": true})
	if by := b.all(); len(by) != 1 || by["a"].Term != 1 {
		t.Errorf("left %v", by)
	}
}

// R32: what two voters know is passed on to the third when it starts, so that it remembers it when nobody else can be asked.
func TestWhoStartsRemembersWhatTheOthersDo(t *testing.T) {
	n := &Node{cfg: &config.Config{}, state: newStateStore(), dir: &dataDir{id: nodeIdentity{ID: newID()}}, seen: newSeenBook(), old: true}
	n.seen.note("c-1", control.Seen{Term: 4, Index: 40})
	r, err := n.Hello(t.Context(), &control.Hello{RaftID: "a-1"})
	if err != nil {
		t.Fatal(err)
	}
	started := newSeenBook()
	started.take("a-1", r)
	if got := started.of("c-1"); got != (control.Seen{Term: 4, Index: 40}) {
		t.Errorf("of the voter that may be rolled back next, %+v is remembered", got)
	}
}

// R32: the memory of all who start together with a voter counts; one that is gone is waited for only so long.
func TestVoterWaitsForTheMemoryOfTheOthers(t *testing.T) {
	type look struct {
		after    time.Duration
		answered int
		over     bool
	}
	for name, c := range map[string]struct {
		others int
		looks  []look
	}{
		"all are there":                   {2, []look{{0, 2, true}}},
		"the second comes a moment later": {2, []look{{0, 1, false}, {600 * time.Millisecond, 2, true}}},
		"one is gone":                     {2, []look{{0, 1, false}, {1900 * time.Millisecond, 1, false}, {2 * time.Second, 1, true}}},
		"nobody for an hour, then one":    {2, []look{{0, 0, false}, {time.Hour, 1, false}, {time.Hour + time.Second, 2, true}}},
		"nobody":                          {2, []look{{0, 0, false}, {time.Hour, 0, false}}},
		"of five, one is not enough":      {4, []look{{0, 1, false}, {time.Hour, 1, false}, {2 * time.Hour, 2, false}, {3 * time.Hour, 2, true}}},
		"it does not vote":                {0, []look{{0, 0, true}}},
	} {
		call := rollCall{others: c.others, patience: 2 * time.Second}
		for _, l := range c.looks {
			if got := call.over(cluster.Instant(0).Add(l.after), l.answered); got != l.over {
				t.Errorf("%s: after %v, with %d answers: over %t", name, l.after, l.answered, got)
			}
		}
	}
}

// What is noted while the last writing is just over is written at the end.
func TestVotersAreWrittenOnceMoreAtTheEnd(t *testing.T) {
	cfg := &config.Config{Nodes: []config.Node{{Name: "a", DataDir: t.TempDir()}}, Self: "a"}
	n := &Node{cfg: cfg, state: newStateStore(), seen: newSeenBook(), disk: deadline.New(), log: slog.New(slog.DiscardHandler)}
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	n.seen.note("c-1", control.Seen{Term: 1, Index: 1})
	go func() { done <- n.keepSeen(ctx) }()
	for seenIn(t, n.seenFile())["c-1"].Term != 1 {
		time.Sleep(time.Millisecond)
	}
	n.seen.note("c-1", control.Seen{Term: 1, Index: 2})
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := seenIn(t, n.seenFile())["c-1"].Index; got != 2 {
		t.Errorf("entry %d is on disk", got)
	}
}

type seenNetwork struct{ net.Listener }

func (seenNetwork) Dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// R32: of itself a voter that starts remembers its term, not the length of its log: entries that no majority had may be
// overruled while it is away, and a healthy voter would be sent away for good.
func TestEntriesThatMayBeOverruledAreNotRemembered(t *testing.T) {
	data := t.TempDir()
	dir := &dataDir{id: nodeIdentity{Node: "a", ID: newID()}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	state := newStateStore()
	r, err := consensus.Open(consensus.Config{ID: dir.raftID(), Address: l.Addr().String(), Cluster: "c", Dir: filepath.Join(data, "raft"),
		Stream: seenNetwork{l}, Machine: state, Heartbeat: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Bootstrap([]consensus.Server{{ID: dir.raftID(), Address: l.Addr().String(), Voter: true}}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if leads, _ := r.State(); leads {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not lead")
		}
	}
	r.Close()
	cfg := &config.Config{Nodes: []config.Node{{Name: "a", DataDir: data}}, Self: "a"}
	n := &Node{cfg: cfg, dir: dir, state: newStateStore(), seen: newSeenBook(), disk: deadline.New(), log: slog.New(slog.DiscardHandler)}
	n.me, n.env.Now = cfg.Nodes[0], func() cluster.Instant { return 0 }
	if err := n.checkReached(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.seen.of(dir.raftID()); got.Term == 0 || got.Index != 0 {
		t.Errorf("it remembers %+v of itself", got)
	}
}

// R32: what is remembered of a voter that was added after this node's last snapshot survives a start that never gets to know of it.
func TestVoterThatTheSnapshotDoesNotKnowIsNotForgotten(t *testing.T) {
	cfg := &config.Config{Nodes: []config.Node{{Name: "a", DataDir: t.TempDir()}}, Self: "a"}
	dir := &dataDir{id: nodeIdentity{Node: "a", ID: newID()}}
	n := &Node{cfg: cfg, dir: dir, state: newStateStore(), disk: deadline.New(), log: slog.New(slog.DiscardHandler), seen: newSeenBook()}
	n.seen.note(dir.raftID(), control.Seen{Term: 9, Index: 900})
	n.seen.note("c-2", control.Seen{Term: 9, Index: 900})
	if err := n.seen.save(n.seenFile()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ index, want uint64 }{{500, 900}, {900, 0}} { // the snapshot; then all that was known
		n.seen = n.loadSeen()
		old := cluster.NewState()
		old.ID, old.Index = "x", c.index
		old.Nodes = map[string]cluster.Node{"a": {Name: "a", RaftID: dir.raftID()}, "c": {Name: "c", RaftID: "c-1"}}
		b, err := old.Encode()
		if err != nil {
			t.Fatal(err)
		}
		n.state = newStateStore()
		if err := n.state.Restore(b); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := n.keepSeen(ctx); err != nil {
			t.Fatal(err)
		}
		if got := n.seen.of("c-2").Index; got != c.want {
			t.Errorf("a state of entry %d: of c-2 entry %d is remembered, want %d", c.index, got, c.want)
		}
	}
}

package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestGroupElectsAndAppliesEverywhereInOneOrder(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 3)
	var first *member
	var mu sync.Mutex
	applied := map[string]bool{}
	for round := 0; len(applied) < 20; round++ { // a leader that a busy machine makes lose its place leaves some unknown
		first = leader(t, group...)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				name := fmt.Sprintf("r%dc%d", round, i)
				result, index, err := first.Propose(t.Context(), []byte(name))
				switch {
				case errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotLeader):
				case err != nil || index == 0 || result.(int) < 1:
					t.Errorf("%s: result %v, index %d, error %v", name, result, index, err)
				default:
					mu.Lock()
					applied[name] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
	}
	eventually(t, "all commands everywhere, in one order", func() bool {
		return !slices.ContainsFunc(group, func(m *member) bool {
			return !slices.Equal(m.journal.all(), group[0].journal.all()) || !holds(m.journal.all(), applied)
		})
	})
	eventually(t, "who leads to be known everywhere, and to say so itself", func() bool {
		first = leader(t, group...)
		s := first.Stats()
		id, address := group[1].Leader()
		return id == first.cfg.ID && address == first.cfg.Address && s.State == "Leader" && s.Term == first.Term() && s.LastIndex >= 21 && !s.Failed && s.Connections > 0
	})
}

// holds reports whether each of the commands is there exactly once.
func holds(journal []string, commands map[string]bool) bool {
	times := map[string]int{}
	for _, c := range journal {
		times[c]++
	}
	for c := range commands {
		if times[c] != 1 {
			return false
		}
	}
	return true
}

func TestFollowerRefusesWithoutAppending(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 3, calm)
	first := leader(t, group...)
	follower := others(group, first)[0]
	_, index, err := follower.Propose(t.Context(), []byte("x"))
	mustFail(t, err, ErrNotLeader)
	if index != 0 {
		t.Errorf("index %d of a refused command", index)
	}
	mustFail(t, follower.Barrier(t.Context()), ErrNotLeader)
	mustFail(t, follower.AddVoter(t.Context(), "x-1", "127.0.0.1:1"), ErrNotLeader)
	mustFail(t, follower.TransferLeadership(t.Context(), first.cfg.ID), ErrNotLeader)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = first.Propose(ended, []byte("x"))
	mustFail(t, err, context.Canceled)
	if _, _, err := first.Propose(t.Context(), make([]byte, maxCommand+1)); err == nil {
		t.Error("an oversized command was accepted")
	}
	mustFail(t, group[0].Bootstrap([]Server{group[0].server()}), ErrNotEmpty)
	if has(first, "x") {
		t.Error("a refused command was applied")
	}
}

// A follower that has not heard yet who votes still says first that it does not lead.
func TestFollowerThatKnowsNoVoterRefusesToTransferLeadership(t *testing.T) {
	t.Parallel()
	m := newMember(t, "n0")
	m.start(t)
	mustFail(t, m.TransferLeadership(t.Context(), "n1-1"), ErrNotLeader)
}

func TestLeaderKilledAnotherTakesOverAndItReturns(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 3)
	propose(t, "before", group...)
	first := leader(t, group...)
	term := first.Term()
	first.shut(t)
	if _, _, err := first.Propose(t.Context(), []byte("late")); err == nil {
		t.Error("a closed Raft took a command")
	}
	rest := others(group, first)
	propose(t, "without it", rest...)
	if second := leader(t, rest...); second.Term() <= term {
		t.Errorf("new leader's term %d does not exceed %d", second.Term(), term)
	}
	first.start(t)
	everywhere(t, "without it", group...)
	if !has(first, "before") {
		t.Error("the returned node lost a command")
	}
}

func TestWholeGroupRestartedKeepsItsState(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 3)
	propose(t, "kept", group...)
	everywhere(t, "kept", group...)
	for _, m := range group {
		m.shut(t)
	}
	for _, m := range group {
		if ok, err := HasState(m.cfg.Dir); !ok || err != nil {
			t.Errorf("HasState = %v, %v", ok, err)
		}
		// R32: what was applied is never less than what a restart finds.
		r, err := Reached(m.cfg.Dir, m.cfg.ID)
		if r.Term != m.Term() || r.Index < m.AppliedIndex() || r.Index != m.LastIndex() || len(r.Voters) != len(group) || err != nil {
			t.Errorf("Reached = %+v, %v; it had term %d, index %d, applied %d, %d voters", r, err, m.Term(), m.LastIndex(), m.AppliedIndex(), len(group))
		}
		if r, err := Reached(m.cfg.Dir, "another"); !errors.Is(err, ErrForeign) || r.Index != 0 {
			t.Errorf("to another node it tells %+v, %v", r, err)
		}
		m.start(t)
	}
	propose(t, "more", group...)
	everywhere(t, "more", group...)
	for _, m := range group {
		if got := m.journal.all(); got[0] != "kept" {
			t.Errorf("%s has %v", m.cfg.ID, got)
		}
	}
}

func TestSnapshotIsTakenRestoredAndSentToALateNode(t *testing.T) {
	t.Parallel()
	few := func(c *Config) { c.SnapshotThreshold = 10 }
	group := newGroup(t, 3, few)
	first := leader(t, group...)
	absent := others(group, first)[0]
	absent.shut(t)
	// More than the trailing entries that stay in the log, so that the absent one needs the snapshot.
	for i := 0; i < trailingLogs+200; i += 100 {
		var wg sync.WaitGroup
		for j := range 100 {
			wg.Go(func() { propose(t, fmt.Sprint(i+j), others(group, absent)...) })
		}
		wg.Wait()
	}
	eventually(t, "a snapshot, and a shorter log", func() bool {
		from, err := first.store.FirstIndex()
		return err == nil && from > 50
	})
	for _, m := range others(group, absent) { // raft-wal serves what it has cut off until it is opened again
		m.shut(t)
		m.start(t)
	}
	absent.start(t)
	propose(t, "end", group...)
	everywhere(t, "end", group...)
	if absent.journal.restored == 0 {
		t.Error("the late node got no snapshot")
	}
	first.shut(t)
	first.start(t)
	if first.journal.restored == 0 || first.AppliedIndex() == 0 {
		t.Errorf("the snapshot was not restored at the start: applied up to %d", first.AppliedIndex())
	}
	propose(t, "after", group...)
	everywhere(t, "after", group...)
	if a, b := first.journal.all(), absent.journal.all(); !slices.Equal(a, b) {
		t.Errorf("%d and %d commands differ", len(a), len(b))
	}
}

func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 1)
	first := leader(t, group...)
	second, third := newMember(t, "second"), newMember(t, "third")
	removed := make(chan struct{})
	third.cfg.OnRemoved = func() { close(removed) }
	second.start(t)
	third.start(t)
	all := []*member{first, second, third}
	// Whoever leads is asked: a busy machine may change who that is. A change that is made twice is made.
	change := func(what string, make func(*member) error) {
		t.Helper()
		eventually(t, what, func() bool {
			err := make(leader(t, all...))
			if err != nil {
				t.Logf("%s: %v", what, err)
			}
			return err == nil
		})
	}
	change("a non-voter", func(m *member) error { return m.AddNonvoter(t.Context(), second.cfg.ID, second.cfg.Address) })
	change("it votes", func(m *member) error { return m.AddVoter(t.Context(), second.cfg.ID, second.cfg.Address) })
	change("a third", func(m *member) error { return m.AddVoter(t.Context(), third.cfg.ID, third.cfg.Address) })
	propose(t, "three", all...)
	everywhere(t, "three", first, second, third)
	if s, err := third.Servers(); err != nil || len(s) != 3 || !s[1].Voter || s[2] != third.server() {
		t.Errorf("Servers() = %v, %v", s, err)
	}
	change("a vote taken away", func(m *member) error { return m.Demote(t.Context(), second.cfg.ID) })
	if err := leader(t, first, third).TransferLeadership(t.Context(), second.cfg.ID); err == nil {
		t.Error("leadership was offered to a node without a vote")
	}
	change("the third leaves", func(m *member) error { return m.Remove(t.Context(), third.cfg.ID) })
	<-removed
	propose(t, "alone", first)
	everywhere(t, "alone", first, second)
	if has(third, "alone") {
		t.Error("a removed node still follows")
	}
}

func TestLeaderRemovesItselfAndIsToldSo(t *testing.T) {
	t.Parallel()
	removed := make(chan struct{}, 3)
	group := newGroup(t, 3, calm, func(c *Config) { c.OnRemoved = func() { removed <- struct{}{} } })
	first := leader(t, group...)
	if err := first.Remove(t.Context(), first.cfg.ID); err != nil {
		t.Fatal(err)
	}
	propose(t, "without it", others(group, first)...)
	<-removed
	if leads, _ := first.State(); leads {
		t.Error("a removed node still leads")
	}
}

func TestLeadershipIsTransferred(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 3, calm) // raft bounds a transfer by the heartbeat: on a busy machine, too
	first := leader(t, group...)
	to := others(group, first)[1]
	propose(t, "x", first)
	everywhere(t, "x", group...)
	if err := first.TransferLeadership(t.Context(), to.cfg.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the chosen one leads", func() bool { leads, _ := to.State(); return leads })
}

func TestLeadershipChangesAreToldInOrderWithTheirTerms(t *testing.T) {
	t.Parallel()
	type told struct {
		term   uint64
		leader bool
	}
	var mu sync.Mutex
	changes := map[string][]told{}
	gate := make(chan struct{})
	m := newMember(t, "a")
	second := newMember(t, "b")
	for _, x := range []*member{m, second} {
		id := x.cfg.ID
		x.cfg.OnLeader = func(term uint64, leader bool) {
			<-gate // a slow owner must not hold up raft, nor lose a change
			mu.Lock()
			defer mu.Unlock()
			changes[id] = append(changes[id], told{term, leader})
		}
		x.start(t)
	}
	if err := m.Bootstrap([]Server{m.server(), second.server()}); err != nil {
		t.Fatal(err)
	}
	const transfers = 4
	for range transfers {
		from := leader(t, m, second)
		eventually(t, "a transfer", func() bool {
			if leads, _ := from.State(); !leads {
				return true
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_ = from.TransferLeadership(ctx, others([]*member{m, second}, from)[0].cfg.ID)
			return false
		})
	}
	close(gate)
	m.shut(t)
	second.shut(t)
	gained := map[uint64]bool{}
	for id, all := range changes {
		for i, c := range all {
			if c.leader != (i%2 == 0) {
				t.Errorf("%s: change %d of %v is out of order", id, i, all)
			}
			if i%2 == 1 && c.term != all[i-1].term || i > 0 && c.leader && c.term <= all[i-1].term {
				t.Errorf("%s: terms of %v", id, all)
			}
			if c.leader && gained[c.term] {
				t.Errorf("two leaders in term %d: %v", c.term, changes)
			}
			gained[c.term] = gained[c.term] || c.leader
		}
		if len(all)%2 != 0 {
			t.Errorf("%s was not told of its end: %v", id, all)
		}
	}
	if len(gained) < transfers {
		t.Errorf("%d terms were led, want at least %d: %v", len(gained), transfers, changes)
	}
}

// slow is a state machine whose first Apply waits.
type slow struct {
	journal
	gate chan struct{}
}

func (s *slow) Apply(index, term uint64, command []byte) any {
	<-s.gate
	return s.journal.Apply(index, term, command)
}

// raft forgets futures of entries that are committed but not applied when it shuts down.
func TestCloseAnswersEveryCall(t *testing.T) {
	t.Parallel()
	m := newMember(t, "a")
	machine := &slow{gate: make(chan struct{})}
	cfg := m.cfg
	cfg.Machine = machine
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Bootstrap([]Server{m.server()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it leads", func() bool { leads, _ := r.State(); return leads })
	const calls = 12
	answers := make(chan error, calls)
	for range calls { // each committed by itself, waiting behind the first
		before := r.Stats().CommitIndex
		go func() {
			_, _, err := r.Propose(context.Background(), []byte("x"))
			answers <- err
		}()
		eventually(t, "a commit", func() bool { return r.Stats().CommitIndex > before })
	}
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }()
	eventually(t, "no further calls", func() bool {
		_, _, err := r.Propose(within(time.Millisecond), []byte("late"))
		return errors.Is(err, ErrClosed)
	})
	close(machine.gate)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	for range calls {
		if err := <-answers; err != nil {
			t.Errorf("a committed command was answered: %v", err)
		}
	}
}

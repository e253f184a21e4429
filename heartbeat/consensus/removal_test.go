package consensus

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// losses names the addresses to which nothing can be sent; other than behind a cut link, it does not arrive later.
type losses struct {
	mu sync.Mutex
	to map[string]bool
}

func (l *losses) set(to string, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		l.to = map[string]bool{}
	}
	l.to[to] = lost
}

func (l *losses) check(to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to[to] {
		return errors.New("lost on the way to " + to)
	}
	return nil
}

// lossy is a StreamLayer with losses.
type lossy struct {
	StreamLayer
	losses *losses
}

func (l lossy) Dial(ctx context.Context, to string) (net.Conn, error) {
	if err := l.losses.check(to); err != nil {
		return nil, err
	}
	c, err := l.StreamLayer.Dial(ctx, to)
	return lossyConn{c, l.losses, to}, err
}

type lossyConn struct {
	net.Conn
	losses *losses
	to     string
}

func (c lossyConn) Write(p []byte) (int, error) {
	if err := c.losses.check(c.to); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// leaver is a group of three whose last member is about to be removed; removed counts what it is told.
func leaver(t *testing.T) (v *virtual, third *member, removed chan struct{}) {
	removed = make(chan struct{}, 8)
	v = newVirtual(t, 3, func(c *Config) {
		if c.Address == "n2" {
			c.OnRemoved = func() { removed <- struct{}{} }
		} else {
			c.OnRemoved = func() { t.Errorf("%s was told that it was removed", c.ID) }
		}
	})
	return v, v.members[2], removed
}

// leads makes one of v's first two members the leader.
func (v *virtual) leads() *member {
	first := leader(v.t, v.members...)
	if first == v.members[2] {
		if err := first.TransferLeadership(v.t.Context(), v.members[0].cfg.ID); err != nil {
			v.t.Fatal(err)
		}
		first = leader(v.t, v.members[:2]...)
	}
	propose(v.t, "settled", first)
	everywhere(v.t, "settled", v.members...)
	return first
}

// The leader tries once to tell a member that it is none any more. Here that one request is lost.
func TestRemovedNodeIsToldAlthoughTheLeadersOnlyRequestWasLost(t *testing.T) {
	for name, voter := range map[string]bool{"voter": true, "non-voter": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, third, removed := leaver(t)
				defer v.close()
				first := v.leads()
				if !voter {
					if err := first.Demote(t.Context(), third.cfg.ID); err != nil {
						t.Fatal(err)
					}
					propose(t, "demoted", first)
					everywhere(t, "demoted", v.members...)
				}
				v.losses.set(third.cfg.Address, true)
				if err := first.Remove(t.Context(), third.cfg.ID); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second) // raft's one request has failed by then
				v.losses.set(third.cfg.Address, false)
				waitRemoved(t, removed)
				if s, err := third.Servers(); err != nil || len(s) != 3 {
					t.Errorf("the removal reached it after all, nothing was tested: %v, %v", s, err)
				}
				propose(t, "goes on", first)
			})
		})
	}
}

// A node that was off does not know what was committed when it starts.
func TestNodeRemovedWhileItWasOffIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, third, removed := leaver(t)
		defer v.close()
		first := v.leads()
		third.shut(t)
		if err := first.Remove(t.Context(), third.cfg.ID); err != nil {
			t.Fatal(err)
		}
		v.open(third)
		waitRemoved(t, removed)
	})
}

func waitRemoved(t *testing.T, removed <-chan struct{}) {
	t.Helper()
	select {
	case <-removed:
	case <-time.After(time.Hour): // virtual
		t.Fatal("it was never told")
	}
	time.Sleep(time.Minute)
	select {
	case <-removed:
		t.Error("it was told twice")
	default:
	}
}

// Silence alone means nothing: neither without a majority, nor while only a member answers that lags behind.
func TestMemberWithoutALeaderIsNotRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, third, removed := leaver(t)
		defer v.close()
		first := v.leads()
		v.losses.set(third.cfg.Address, true)
		late := &member{cfg: Config{ID: "late-1", Address: "late", Memory: NewMemory(), Logger: testLogger(t),
			OnRemoved: func() { removed <- struct{}{} }}}
		v.open(late)
		defer func() { late.shut(t) }()
		if err := first.AddNonvoter(t.Context(), late.cfg.ID, late.cfg.Address); err != nil {
			t.Fatal(err)
		}
		propose(t, "added", first)
		everywhere(t, "added", late)
		for _, m := range v.members[:2] {
			m.shut(t)
		}
		v.losses.set(third.cfg.Address, false)
		time.Sleep(time.Minute)
		third.standing.mu.Lock()
		behind := third.standing.at.index != 0 && !names(third.standing.members, late.cfg.ID)
		third.standing.mu.Unlock()
		if _, member := late.standing.own(); !member || !behind {
			t.Errorf("late is a member: %v; third lags behind: %v", member, behind)
		}
		if len(removed) != 0 {
			t.Error("a member was told that it was removed")
		}
	})
}

// A node whose addition was begun and overruled was no member: it may be added yet.
func TestNodeWhoseAdditionWasOverruledIsNotRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _, _ := leaver(t)
		defer v.close()
		first := v.leads()
		told := make(chan struct{}, 8)
		late := &member{cfg: Config{ID: "late-1", Address: "late", Memory: NewMemory(), Logger: testLogger(t),
			OnRemoved: func() { told <- struct{}{} }}}
		v.open(late)
		defer func() { late.shut(t) }()
		rest := others(v.members, first)
		v.network.Isolate(first.cfg.Address, v.besides(first)...)
		mustFail(t, first.AddNonvoter(within(5*time.Second), late.cfg.ID, late.cfg.Address), ErrUnknown)
		if s, err := late.Servers(); err != nil || len(s) != 4 {
			t.Fatalf("the addition did not reach it, nothing is tested: %v, %v", s, err)
		}
		second := leader(t, rest...)
		first.shut(t)
		// So far that its entry is not the newest any more, and the new configuration is.
		for range 3 {
			propose(t, "x", second)
		}
		if err := second.Remove(t.Context(), first.cfg.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if named, _ := late.standing.own(); second.standing.judge(late.cfg.ID, named) != notMember {
			t.Error("it is not asked about, nothing is tested")
		}
		if len(told) != 0 {
			t.Fatal("a node that was never a member was told that it was removed")
		}
		if err := second.AddNonvoter(t.Context(), late.cfg.ID, late.cfg.Address); err != nil {
			t.Fatal(err)
		}
		propose(t, "added", second)
		everywhere(t, "added", late)
		if len(told) != 0 {
			t.Error("it was told that it was removed when it was added")
		}
	})
}

func TestVerdictOnAnotherNodesMembership(t *testing.T) {
	group := func(ids ...string) (c raft.Configuration) {
		for _, id := range ids {
			c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: "x"})
		}
		return c
	}
	logs := raft.NewInmemStore()
	for i, term := range []uint64{2, 2, 2, 4, 4} { // entries 11 to 15
		if err := logs.StoreLog(&raft.Log{Index: 11 + uint64(i), Term: term}); err != nil {
			t.Fatal(err)
		}
	}
	empty := raft.NewInmemStore()
	for name, c := range map[string]struct {
		logs    raft.LogStore
		at      point
		members raft.Configuration
		newest  point
		want    verdict
	}{
		"nothing is known here":         {logs, point{}, group(), point{12, 2}, unremoved},
		"it never was named":            {logs, point{14, 0}, group("a"), point{}, unremoved},
		"a member":                      {logs, point{14, 0}, group("a", "me"), point{12, 2}, unremoved},
		"removed":                       {logs, point{14, 0}, group("a"), point{12, 2}, wasRemoved},
		"added again, here not yet":     {logs, point{14, 0}, group("a"), point{15, 4}, unremoved},
		"added by a leader to come":     {logs, point{14, 0}, group("a"), point{15, 5}, unremoved},
		"addition overruled":            {logs, point{14, 0}, group("a"), point{12, 3}, notMember},
		"longer, but overruled":         {logs, point{14, 0}, group("a"), point{99, 3}, notMember},
		"overruled at the same place":   {logs, point{14, 0}, group("a"), point{14, 2}, notMember},
		"its entry is in the snapshot":  {logs, point{14, 0}, group("a"), point{7, 1}, notMember},
		"of a snapshot without a term":  {empty, point{14, 4}, group("a"), point{12, 0}, notMember},
		"all is in the snapshot":        {empty, point{14, 4}, group("a"), point{12, 2}, notMember},
		"overruled, by the snapshot":    {empty, point{14, 4}, group("a"), point{99, 3}, notMember},
		"behind, by the snapshot":       {empty, point{14, 4}, group("a"), point{15, 4}, unremoved},
		"term unknown here, behind":     {empty, point{14, 0}, group("a"), point{15, 4}, unremoved},
		"term unknown here, farther on": {empty, point{14, 0}, group("a"), point{12, 2}, notMember},
	} {
		s := &standing{id: "a", logs: c.logs, at: c.at, members: c.members}
		if got := s.judge("me", c.newest); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

package consensus

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// contacts notes when a leader spoke to a member, for a while in virtual time.
func contacts(m *member, d time.Duration) (at []time.Time) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if c := m.LastContact(); len(at) == 0 || !c.Equal(at[len(at)-1]) {
			at = append(at, c)
		}
	}
	return at
}

func (m *member) timers() raft.ReloadableConfig { return m.node.ReloadableConfig() }

// slowed tells whether raft's own timers are slow on m.
func slowed(m *member) bool { return m.timers().HeartbeatTimeout > m.cfg.Heartbeat }

func newIdle(t *testing.T) (v *virtual, first *member) {
	v = newVirtual(t, 3, func(c *Config) {
		c.Heartbeat, c.LeaderLease, c.Commit = 400*time.Millisecond, 400*time.Millisecond, time.Hour
	})
	first = leader(t, v.members...)
	time.Sleep(10 * time.Second)
	return v, first
}

// An idle leader speaks to all followers at one moment, a quarter of a heartbeat after the last.
func TestIdleLeaderBeatsEvenlyForAllFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, first := newIdle(t)
		defer v.close()
		rest := others(v.members, first)
		seen := make(chan []time.Time)
		go func() { seen <- contacts(rest[0], 10*time.Second) }()
		b := contacts(rest[1], 10*time.Second)
		a := <-seen
		if len(a) != len(b) || len(a) < 90 || len(a) > 110 {
			t.Fatalf("in 100 quarters of a heartbeat, %d and %d contacts", len(a), len(b))
		}
		for i := range a {
			if apart := a[i].Sub(b[i]).Abs(); apart > 2*time.Millisecond {
				t.Errorf("contact %d: the followers hear it %v apart", i, apart)
			}
			if i > 0 && a[i].Sub(a[i-1]) > 110*time.Millisecond {
				t.Errorf("contact %d comes %v after the one before", i, a[i].Sub(a[i-1]))
			}
		}
	})
}

// While a follower does not answer, and on every follower, raft goes by its own timers.
func TestBeatIsEvenOnlyOnALeaderWhomAllAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, first := newIdle(t)
		defer v.close()
		rest := others(v.members, first)
		if !slowed(first) || slowed(rest[0]) || slowed(rest[1]) {
			t.Fatalf("timers of the leader %+v, of the others %+v and %+v", first.timers(), rest[0].timers(), rest[1].timers())
		}
		v.network.Isolate(rest[0].cfg.Address, v.besides(rest[0])...)
		time.Sleep(2 * time.Second)
		if slowed(first) {
			t.Error("a follower does not answer, and the leader's timers are still slow")
		}
		v.network.Rejoin(rest[0].cfg.Address, v.besides(rest[0])...)
		time.Sleep(10 * time.Second)
		if !slowed(first) {
			t.Error("all answer again, and the beat is not even")
		}
		v.network.Isolate(first.cfg.Address, v.besides(first)...)
		second := leader(t, rest...)
		time.Sleep(10 * time.Second)
		if leads, _ := first.State(); leads || slowed(first) {
			t.Errorf("a leader that was cut off: leads %v, timers %+v", leads, first.timers())
		}
		if slowed(second) {
			t.Error("one follower is cut off, and the next leader's timers are slow")
		}
	})
}

// A leader without its even beat keeps its followers by raft's slow timers: they are the net below it.
func TestSlowTimersAloneKeepTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, first := newIdle(t)
		defer v.close()
		term := first.Term()
		first.beat.mu.Lock()
		first.beat.from = time.Now().Add(time.Hour) // no beat, and the timers stay slow
		first.beat.mu.Unlock()
		gaps := contacts(others(v.members, first)[0], time.Minute)
		for i := 1; i < len(gaps); i++ {
			if gap := gaps[i].Sub(gaps[i-1]); gap > 250*time.Millisecond {
				t.Errorf("%v between two heartbeats", gap)
			}
		}
		if leads, now := first.State(); !leads || now != term || !slowed(first) || len(gaps) > 500 {
			t.Errorf("leads %v in term %d, before in %d; %d heartbeats in a minute; %+v", leads, now, term, len(gaps), first.timers())
		}
	})
}

// After SetTimers the heartbeat may be longer than the leader lease: the leader is answered within that all the same.
func TestEvenBeatFitsTheLeaderLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, first := newIdle(t)
		defer v.close()
		term := first.Term()
		for _, m := range v.members {
			if _, err := m.SetTimers(time.Hour, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if leads, now := first.State(); !leads || now != term || first.gap() >= first.cfg.LeaderLease/2 {
			t.Errorf("leads %v in term %d, before in %d; a beat each %v", leads, now, term, first.gap())
		}
	})
}

// A leader that is replaced although everybody answers it waits by a follower's timers from the moment at which it follows.
func TestReplacedLeaderWaitsByAFollowersTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, first := newIdle(t)
		defer v.close()
		if !slowed(first) {
			t.Fatal("the beat is not even")
		}
		next := others(v.members, first)[0]
		ask := &raft.TimeoutNowRequest{RPCHeader: first.trans.header()}
		if err := first.trans.TimeoutNow(raft.ServerID(next.cfg.ID), raft.ServerAddress(next.cfg.Address), ask, new(raft.TimeoutNowResponse)); err != nil {
			t.Fatal(err)
		}
		for first.node.State() == raft.Leader {
			time.Sleep(time.Millisecond)
		}
		synctest.Wait() // for raft's main loop, which is about to follow
		if slowed(first) {
			t.Errorf("it follows by %+v", first.timers())
		}
		if leader(t, v.members...) == first {
			t.Error("it leads again")
		}
	})
}

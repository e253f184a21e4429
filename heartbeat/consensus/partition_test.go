package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/heartbeat/consensus/consensustest"
)

// virtual is a group in virtual time, over an in-memory network.
type virtual struct {
	t       *testing.T
	network *consensustest.Network
	members []*member
	names   []string
	losses  losses
}

func newVirtual(t *testing.T, n int, change ...func(*Config)) *virtual {
	v := &virtual{t: t, network: consensustest.NewNetwork()}
	var servers []Server
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		m := &member{cfg: Config{ID: name + "-1", Address: name, Memory: NewMemory(), Logger: testLogger(t)}}
		for _, c := range change {
			c(&m.cfg)
		}
		v.members, v.names = append(v.members, m), append(v.names, name)
		servers = append(servers, m.server())
	}
	for _, m := range v.members {
		v.open(m)
	}
	if err := v.members[0].Bootstrap(servers); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *virtual) open(m *member) {
	v.t.Helper()
	layer, err := v.network.Listen(m.cfg.Address)
	if err != nil {
		v.t.Fatal(err)
	}
	cfg := m.cfg
	m.journal = &journal{}
	cfg.Stream, cfg.Machine = lossy{layer, &v.losses}, m.journal
	if m.Raft, err = Open(cfg); err != nil {
		v.t.Fatal(err)
	}
	m.open = true
}

func (v *virtual) close() {
	for _, m := range v.members {
		m.shut(v.t)
	}
}

// besides returns the names of all but m.
func (v *virtual) besides(m *member) []string {
	return slices.DeleteFunc(slices.Clone(v.names), func(n string) bool { return n == m.cfg.Address })
}

// within is ctx for one attempt, in virtual time.
func within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func TestCutOffLeaderDoesNotKnowAndItsCommandIsOverruled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.close()
		old := leader(t, v.members...)
		term := old.Term()
		v.network.Isolate(old.cfg.Address, v.besides(old)...)
		_, _, err := old.Propose(within(time.Minute), []byte("lost"))
		mustFail(t, err, ErrUnknown)
		rest := others(v.members, old)
		propose(t, "kept", rest...)
		if leads, _ := old.State(); leads {
			t.Error("the old leader still leads after its lease")
		}
		_, _, err = old.Propose(within(time.Minute), []byte("refused"))
		mustFail(t, err, ErrNotLeader)
		v.network.Rejoin(old.cfg.Address, v.besides(old)...)
		everywhere(t, "kept", v.members...)
		propose(t, "end", v.members...)
		everywhere(t, "end", v.members...)
		for _, m := range v.members {
			if has(m, "lost") || has(m, "refused") {
				t.Errorf("%s applied %v", m.cfg.ID, m.journal.all())
			}
		}
		if old.Term() <= term {
			t.Errorf("term %d after %d", old.Term(), term)
		}
	})
}

// The same error, the other outcome: the followers have the entry, only their answers were lost.
func TestLeaderThatHearsNothingDoesNotKnowAndItsCommandSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.close()
		old := leader(t, v.members...)
		propose(t, "before", old)
		everywhere(t, "before", v.members...)
		time.Sleep(time.Second) // what tells of the commit has been answered: else the next one would wait for that
		for _, n := range v.besides(old) {
			v.network.Cut(n, old.cfg.Address)
		}
		_, _, err := old.Propose(within(time.Minute), []byte("survives"))
		mustFail(t, err, ErrUnknown)
		rest := others(v.members, old)
		propose(t, "after", rest...)
		everywhere(t, "survives", rest...)
		for _, n := range v.besides(old) {
			v.network.Heal(n, old.cfg.Address)
		}
		everywhere(t, "after", v.members...)
		want := []string{"before", "survives", "after"}
		for _, m := range v.members {
			if got := m.journal.all(); !slices.Equal(got, want) {
				t.Errorf("%s applied %v, want %v", m.cfg.ID, got, want)
			}
		}
	})
}

// faults.md X102, X103: a follower that is cut off and returns does not unseat the leader (pre-vote).
func TestX103FlappingFollowerDoesNotForceElections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.close()
		first := leader(t, v.members...)
		term := first.Term()
		flapping := others(v.members, first)[0]
		for i := range 20 {
			v.network.Isolate(flapping.cfg.Address, v.besides(flapping)...)
			time.Sleep(time.Second)
			v.network.Rejoin(flapping.cfg.Address, v.besides(flapping)...)
			time.Sleep(time.Second)
			propose(t, fmt.Sprint(i), first)
		}
		everywhere(t, "19", v.members...)
		if leads, now := first.State(); !leads || now != term {
			t.Errorf("leads %v in term %d, before in %d", leads, now, term)
		}
	})
}

func TestNoMajorityNoCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.close()
		first := leader(t, v.members...)
		for _, m := range others(v.members, first) {
			m.shut(t)
		}
		_, _, err := first.Propose(within(time.Minute), []byte("x"))
		mustFail(t, err, ErrUnknown)
		time.Sleep(10 * time.Second)
		if leads, _ := first.State(); leads || has(first, "x") {
			t.Error("a minority went on alone")
		}
		for _, m := range others(v.members, first) {
			v.open(m) // with what its Memory holds
		}
		propose(t, "together", v.members...)
		everywhere(t, "together", v.members...)
	})
}

// An error that is not ErrUnknown promises that nothing was appended: held against what was applied, while the group
// is partitioned at random.
func TestErrorsKeepTheirPromiseUnderPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.close()
		certain, unknown := map[string]bool{}, 0 // command -> it was acknowledged
		for i := range 60 {
			cut := v.members[i%3]
			if i%2 == 0 {
				v.network.Isolate(cut.cfg.Address, v.besides(cut)...)
			}
			for j, m := range v.members {
				for k := range 3 {
					command := fmt.Sprintf("%d-%d-%d", i, j, k)
					_, _, err := m.Propose(within(time.Duration(20*(i%7)+1)*time.Millisecond), []byte(command))
					if errors.Is(err, ErrUnknown) {
						unknown++
					} else {
						certain[command] = err == nil
					}
				}
			}
			v.network.Rejoin(cut.cfg.Address, v.besides(cut)...)
			time.Sleep(time.Duration(i%5) * 150 * time.Millisecond)
		}
		propose(t, "end", v.members...)
		everywhere(t, "end", v.members...)
		acknowledged := 0
		for _, m := range v.members {
			for command, ok := range certain {
				if has(m, command) != ok {
					t.Errorf("%s: %s acknowledged %v, applied %v", m.cfg.ID, command, ok, !ok)
				}
				if ok {
					acknowledged++
				}
			}
		}
		if acknowledged == 0 || unknown == 0 {
			t.Errorf("%d acknowledged, %d unknown: the test saw too little", acknowledged, unknown)
		}
	})
}

func TestCallsBeyondTheLimitAreRefusedUnappended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3, func(c *Config) { c.Heartbeat, c.LeaderLease = time.Hour, time.Hour })
		defer v.close()
		var first *member
		for first == nil {
			time.Sleep(time.Minute)
			for _, m := range v.members {
				if leads, _ := m.State(); leads {
					first = m
				}
			}
		}
		v.network.Isolate(first.cfg.Address, v.besides(first)...)
		for range maxCalls {
			go func() { _, _, _ = first.Propose(within(5*time.Minute), []byte("waits")) }()
		}
		synctest.Wait()
		_, index, err := first.Propose(within(time.Second), []byte("one too many"))
		if errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) || index != 0 {
			t.Errorf("index %d, %v", index, err)
		}
		v.network.Rejoin(first.cfg.Address, v.besides(first)...)
		propose(t, "room again", v.members...)
		if has(first, "one too many") {
			t.Error("a refused command was applied")
		}
	})
}

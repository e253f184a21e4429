package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
)

// Three and four replicas. Three data nodes are three voters: while two of them are lost there is no quorum, and the volume is
// suspended until one is back. So of three, two fail one after the other, or at once for a while.

var doubleFaults = flag.Int("double-faults", 0, "double faults of three replicas in each mode; 0: 2, or 10 in make test-long")

// members is a condition for until: the volume is served, and its set has so many.
func members(n int) func(*api.Status) bool {
	return func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && len(s.Volumes[0].InSync) == n && PrimaryIs(s.Volumes[0].Primary)(s)
	}
}

// servedByOther is a condition for until.
func servedByOther(than string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		return len(s.Volumes) == 1 && s.Volumes[0].Primary != than && PrimaryIs(s.Volumes[0].Primary)(s)
	}
}

// comparedAtMost is the most that one resync of any replica has compared, by the history that all nodes share.
func (r *rig) comparedAtMost() (most int64) {
	r.t.Helper()
	for _, n := range r.DataNodes() {
		for _, text := range r.happened(n, "resync ended") {
			var bytes int64
			var to string
			if _, err := fmt.Sscanf(text, "%s is in sync: %d bytes compared", &to, &bytes); err != nil {
				r.t.Fatalf("%q: %v", text, err)
			}
			most = max(most, bytes)
		}
	}
	return most
}

func TestThreeReplicasPrimaryIsKilled(t *testing.T) {
	for _, mode := range some(t, 1, "sync", "semisync") {
		t.Run(mode, func(t *testing.T) {
			r := healthy(t, Config{RTO: "4s", Copies: 3, Mode: mode})
			l := r.load()
			before := r.until("all are members", members(3)).Volumes[0]
			r.Kill(before.Primary)
			after := r.until("one of the two others serves", servedByOther(before.Primary)).Volumes[0]
			l.more(300)
			if v := r.until("two are members", members(2)).Volumes[0]; slices.Contains(v.InSync, before.Primary) {
				t.Errorf("the set is %v, and %s was killed", v.InSync, before.Primary)
			}
			r.start(before.Primary)
			r.until("the killed one is a member again", members(3))
			l.more(100)
			if v := r.vol(); v.Epoch != after.Epoch {
				t.Errorf("who came back moved the volume from epoch %d to %d", after.Epoch, v.Epoch)
			}
			if n := r.comparedAtMost(); n == 0 || n > 32<<20 {
				t.Errorf("%d bytes were compared when it came back; the load wrote to 16 MiB of 64 MiB", n)
			}
			l.stop()
			r.same()
		})
	}
}

// A hand-over goes to the one that was named, also when another answers first.
func TestThreeReplicasHandOverToEach(t *testing.T) {
	r := healthy(t, Config{RTO: "4s", Copies: 3})
	l := r.load()
	for _, to := range []string{"gamma", "beta", "alpha", "gamma"} {
		if r.vol().Primary == to {
			continue
		}
		r.until("all are members", members(3))
		r.admin(0, "failover", "vol", "--to", to)
		r.until("it serves", PrimaryIs(to))
		l.more(50)
	}
	l.stop()
	r.same()
}

// A node is removed, which as primary has to hand over first, and added again with an empty folder.
func TestThreeReplicasNodeIsRemovedAndAddedAgain(t *testing.T) {
	r := healthy(t, Config{RTO: "4s", Copies: 3})
	l := r.load()
	const old = "gamma" // the tests ask alpha first, which has to know who leads
	r.until("all are members", members(3))
	r.admin(0, "failover", "vol", "--to", old)
	r.until("it serves", PrimaryIs(old))
	_, errs := r.admin(3, "node", "remove", old)
	r.says(errs, "hand it over first")
	r.admin(0, "failover", "vol", "--to", "beta")
	r.until("another serves", PrimaryIs("beta"))
	r.stop(old)
	r.admin(0, "node", "remove", old)
	r.until("two are members", members(2))
	l.more(100)
	empty(t, r.DataDir(old))
	if err := os.WriteFile(r.Log(old), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.start(old)
	r.untilLog(old, "ha-admin node add "+old)
	r.admin(0, "node", "add", old)
	r.until("all are members again", members(3))
	l.more(50)
	l.stop()
	r.same()
}

// Five voters outlive the loss of two at once.
func TestFourReplicasPrimaryAndAStandbyAreKilledAtOnce(t *testing.T) {
	r := healthy(t, Config{RTO: "6s", Copies: 4})
	l := r.load()
	before := r.until("all are members", members(4)).Volumes[0]
	gone := []string{before.Primary, standbys(r, before.Primary)[rand.IntN(3)]}
	r.Kill(gone...)
	r.until("one of the two others serves", servedByOther(before.Primary))
	l.more(300)
	r.until("both left the set", members(2))
	r.start(gone...)
	r.until("all are members again", members(4))
	l.more(100)
	l.stop()
	r.same()
}

func standbys(r *rig, primary string) []string {
	return slices.DeleteFunc(slices.Clone(r.DataNodes()), func(n string) bool { return n == primary })
}

// Two of three fail, one after the other or at once, again and again, under load: no acknowledged write is lost, and no client
// sees an error.
func TestThreeReplicasDoubleFaults(t *testing.T) {
	n := *doubleFaults
	if n == 0 {
		n = times(2, 10)
	}
	for _, mode := range []string{"sync", "semisync"} {
		t.Run(mode, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			r := healthy(t, Config{Copies: 3, Mode: mode})
			l := r.load()
			var longest time.Duration
			for i := range n {
				began := time.Now()
				r.until("all are members", members(3))
				if i%2 == rng.IntN(2) {
					r.killedInTurn(rng, l)
				} else {
					r.killedAtOnce(rng, l)
				}
				l.more(50)
				longest = max(longest, time.Since(began))
			}
			r.until("all are members", members(3))
			l.stop()
			t.Logf("%d double faults, the longest took %v; %d acknowledged writes, none lost", n, longest.Round(time.Millisecond), l.rec.Writes)
			r.same()
		})
	}
}

// killedInTurn kills the primary, and the next one when the first is back, as a member or not yet.
func (r *rig) killedInTurn(rng *rand.Rand, l *loading) {
	r.t.Helper()
	first := r.vol().Primary
	r.Kill(first)
	second := r.until("another serves", servedByOther(first)).Volumes[0].Primary
	l.more(1 + rng.Int64N(200))
	r.start(first)
	if rng.IntN(2) == 0 {
		r.until("the first is a member again", members(3))
	} else {
		r.until("the first is back", func(s *api.Status) bool { return s.Quorum && r.alive(s, first) })
	}
	if v := r.vol(); len(v.InSync) == 1 { // a busy machine had the third dropped: nobody may follow
		r.until("somebody could follow", func(s *api.Status) bool { return len(s.Volumes) == 1 && len(s.Volumes[0].InSync) > 1 })
	}
	r.Kill(second)
	r.until("another serves", servedByOther(second))
	l.more(50)
	r.start(second)
}

func (r *rig) alive(s *api.Status, node string) bool {
	return slices.ContainsFunc(s.Nodes, func(n api.NodeStatus) bool { return n.Name == node && n.State == "alive" })
}

// killedAtOnce kills two of three, any, and brings them back in any order.
func (r *rig) killedAtOnce(rng *rand.Rand, l *loading) {
	r.t.Helper()
	nodes := slices.Clone(r.DataNodes())
	rng.Shuffle(len(nodes), func(i, k int) { nodes[i], nodes[k] = nodes[k], nodes[i] })
	r.Kill(nodes[0])
	time.Sleep(time.Duration(rng.Int64N(int64(1500 * time.Millisecond)))) // a random moment of the failover that may be under way
	r.Kill(nodes[1])
	time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
	back := nodes[:2]
	if rng.IntN(2) == 0 {
		slices.Reverse(back)
	}
	r.start(back[0])
	if rng.IntN(2) == 0 {
		time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
	}
	r.start(back[1])
	l.more(50)
}

// R6: of two standbys in async the one that has more follows, though the other is there too; that one is resynced.
func TestThreeReplicasInAsyncTheLongestFollows(t *testing.T) {
	r := inAsync(t, Config{RTO: "4s", Copies: 3, Extra: "  async {\n    max_lag_bytes = \"64MiB\"\n    max_lag = \"10s\"\n    patience = \"60s\"\n  }"})
	primary := r.vol().Primary
	rest := slices.DeleteFunc(slices.Clone(r.DataNodes()), func(n string) bool { return n == primary })
	behind, longer := rest[0], rest[1] // of two that have the same the first would follow
	r.until("all are members", members(3))
	c := r.chain(primary, time.Millisecond)
	c.await(chainSlots + 64)
	r.signal(syscall.SIGSTOP, behind)
	had := c.acked.Load()
	c.await(had + 200)
	r.Kill(primary)
	c.end()
	acked := c.acked.Load()
	r.signal(syscall.SIGCONT, behind)
	r.until("the one with the longer prefix took over", PrimaryIs(longer))
	kept, err := prefix(r.dial(r.URIs()...))
	if err != nil || kept < had+100 || kept > acked+1 {
		t.Errorf("%s has the first %d writes, %v; %d were acknowledged, %d when %s stood still", longer, kept, err, acked, had, behind)
	}
	if f := r.lastFailover(); f.From != primary || f.To != longer || f.RPOBytes != 64<<20 {
		t.Errorf("the record is %+v", f)
	}
	r.start(primary)
	r.until("all are members again", members(3))
	r.same()
}

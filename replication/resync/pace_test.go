package resync

import (
	"math/rand/v2"
	"testing"
	"time"
)

// paceRig plays a resync, whose chunks take a while each, beside clients that it slows down.
type paceRig struct {
	Pace
	rng    *rand.Rand
	now    time.Duration
	c      Clients
	ops    int     // of clients in a millisecond
	slow   float64 // by how much a chunk under way slows an operation down, of what it takes without
	noise  float64 // one operation in so many takes a hundred times as long
	flying []time.Duration
	copied int64
	most   int // chunks under way since it was reset
}

const (
	rigChunk = 8 * time.Millisecond
	rigOp    = time.Millisecond
)

func (g *paceRig) play(d time.Duration) (copied int64) {
	before := g.copied
	for end := g.now + d; g.now < end; g.now += time.Millisecond {
		for len(g.flying) > 0 && g.flying[0] <= g.now {
			g.flying = g.flying[1:]
		}
		for range g.ops {
			took := float64(rigOp) * (1 + g.slow*float64(len(g.flying)))
			if g.noise > 0 && g.rng.Float64()*g.noise < 1 {
				took *= 100
			}
			g.c.Ops, g.c.Timed, g.c.Took = g.c.Ops+8, g.c.Timed+1, g.c.Took+time.Duration(took)
		}
		for {
			ok, again := g.Next(g.now, g.c, int64(len(g.flying))*ChunkSize)
			if !ok {
				if again <= 0 {
					panic("it does not say when to ask again")
				}
				break
			}
			g.Took(g.now, ChunkSize)
			g.flying = append(g.flying, g.now+rigChunk)
			g.copied += ChunkSize
			g.most = max(g.most, len(g.flying))
		}
	}
	return g.copied - before
}

func rig(g paceRig) *paceRig {
	g.rng = rand.New(rand.NewPCG(1, 2))
	return &g
}

func perSec(bytes int64, d time.Duration) int64 { return int64(float64(bytes) / d.Seconds()) }

func TestResyncWithoutClientsHasAllUnderWayThatIsOfUse(t *testing.T) {
	g := rig(paceRig{})
	g.play(time.Second)
	if want := alone.flying; g.most != want {
		t.Errorf("%d chunks were under way, want %d", g.most, want)
	}
}

// What clients did before, or while nothing was to be resynced, is no reason to be slow.
func TestResyncBeginsAtOnceWhenClientsHaveGone(t *testing.T) {
	g := rig(paceRig{c: Clients{Ops: 1e6, Timed: 1e5, Took: time.Hour}})
	for range 3 {
		g.most = 0
		g.play(listenTime + 10*time.Millisecond)
		if want := alone.flying; g.most != want {
			t.Errorf("%d chunks were under way, want %d", g.most, want)
		}
		g.now += 10 * time.Second
		g.c.Ops += 1000
		g.flying = nil
	}
}

// Clients that are there are noticed before the first chunk is taken.
func TestResyncThatBeginsBesideClientsListensFirst(t *testing.T) {
	g := rig(paceRig{ops: 1, slow: 1})
	for range 3 {
		g.most = 0
		if g.play(listenTime + calmSlot/2); g.most != 0 {
			t.Errorf("%d chunks were under way before it was known what clients feel without", g.most)
		}
		if g.play(calmSlot); g.most != 1 {
			t.Errorf("%d chunks were under way then, want 1", g.most)
		}
		g.now += 10 * time.Second
		g.flying = nil
	}
}

func TestResyncGivesWayToClientsThatItSlowsDown(t *testing.T) {
	g := rig(paceRig{ops: 1, slow: 4})
	g.play(20 * time.Second)
	g.most = 0
	took, ops := g.c.Took, g.c.Timed
	g.play(20 * time.Second)
	if mean := (g.c.Took - took) / time.Duration(g.c.Timed-ops); mean > 2*rigOp {
		t.Errorf("an operation took %v, without the resync %v", mean, rigOp)
	}
	if g.most > 1 {
		t.Errorf("%d chunks were under way at a time", g.most)
	}
}

// Whatever a noisy machine does to single operations, a resync that clients do not feel gets ahead.
func TestResyncThatNobodyFeelsDoesNotFallToItsLeast(t *testing.T) {
	g := rig(paceRig{ops: 1, slow: 0.01, noise: 50})
	g.play(20 * time.Second)
	if rate := perSec(g.play(20*time.Second), 20*time.Second); rate < 150<<20 {
		t.Errorf("%d bytes a second, one chunk at a time without rests would be %d", rate, int64(ChunkSize*time.Second/rigChunk))
	}
}

func TestResyncKeepsItsLeastUnderClientsThatNothingHelps(t *testing.T) {
	for _, least := range []int64{0, 1 << 20, 20 << 20} {
		g := rig(paceRig{ops: 1, slow: 1000, Pace: Pace{Limits: Limits{Min: least}}})
		g.play(20 * time.Second)
		want := least
		if want == 0 {
			want = DefaultMin
		}
		if rate := perSec(g.play(20*time.Second), 20*time.Second); rate < want*9/10 || rate > max(want*12/10, 8<<20) {
			t.Errorf("min_rate %d: %d bytes a second, want %d", least, rate, want)
		}
	}
}

func TestResyncStaysBelowItsMost(t *testing.T) {
	for _, ops := range []int{0, 1} {
		g := rig(paceRig{ops: ops, Pace: Pace{Limits: Limits{Min: 1 << 30, Max: 10 << 20}}})
		g.play(time.Second)
		if rate := perSec(g.play(20*time.Second), 20*time.Second); rate > 105<<17 || rate < 9<<20 {
			t.Errorf("with %d operations: %d bytes a second, want %d", ops, rate, 10<<20)
		}
	}
}

// An operator sets a limit because a resync takes too much: that is no reason for it to stand still.
func TestResyncGoesOnWhenItsMostIsSet(t *testing.T) {
	g := rig(paceRig{})
	g.play(10 * time.Second)
	g.Limits.Max = 10 << 20
	g.play(time.Second)
	if rate := perSec(g.play(5*time.Second), 5*time.Second); rate > 105<<17 || rate < 9<<20 {
		t.Errorf("%d bytes a second, want %d", rate, 10<<20)
	}
}

func TestResyncTakesAllAgainWhenClientsAreGone(t *testing.T) {
	g := rig(paceRig{ops: 1, slow: 1000})
	g.play(20 * time.Second)
	g.ops, g.most = 0, 0
	g.play(idleAfter + time.Second)
	if want := alone.flying; g.most != want {
		t.Errorf("%d chunks are under way, want %d", g.most, want)
	}
}

// What clients notice is looked for again and again: without the pauses nobody would know what an operation takes.
func TestNothingIsTakenWhileItIsLearnedWhatClientsTakeWithoutIt(t *testing.T) {
	g := rig(paceRig{ops: 1})
	g.play(5 * time.Second)
	longest, since := time.Duration(0), g.now
	for range 5000 {
		before := g.copied
		g.play(time.Millisecond)
		if g.copied != before {
			longest, since = max(longest, g.now-since), g.now
		}
	}
	if longest < calmSlot*9/10 || longest > 2*calmSlot {
		t.Errorf("the longest pause was %v, want %v", longest, calmSlot)
	}
}

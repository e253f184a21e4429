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
	slow   float64 // by how much a whole chunk under way slows an operation down, of what it takes without
	behind float64 // one operation in so many waits until all that is under way is done
	cliff  int64   // bytes under way from where on an operation takes ten times as long; 0: none
	noise  float64 // one operation in so many takes a hundred times as long
	flying []flight
	copied int64
	most   int64 // bytes under way since it was reset
}

type flight struct {
	bytes int64
	until time.Duration
}

const (
	rigTick  = 250 * time.Microsecond
	rigChunk = 8 * time.Millisecond // for ChunkSize
	rigOp    = time.Millisecond
)

func (g *paceRig) under() (bytes int64) {
	for _, f := range g.flying {
		bytes += f.bytes
	}
	return bytes
}

func (g *paceRig) play(d time.Duration) (copied int64) {
	before := g.copied
	for end := g.now + d; g.now < end; g.now += rigTick {
		for len(g.flying) > 0 && g.flying[0].until <= g.now {
			g.flying = g.flying[1:]
		}
		for range g.ops {
			if g.rng.Int64N(int64(time.Millisecond/rigTick)) == 0 {
				g.op(float64(g.under()) / ChunkSize)
			}
		}
		for {
			most, again := g.Next(g.now, &g.c, g.under())
			if most == 0 {
				if again <= 0 {
					panic("it does not say when to ask again")
				}
				break
			}
			g.Took(g.now, most)
			took := time.Duration(float64(rigChunk) * float64(most) / ChunkSize)
			g.flying = append(g.flying, flight{most, g.now + took})
			g.copied += most
			g.most = max(g.most, g.under())
		}
	}
	return g.copied - before
}

// op is one of the clients' operations, which take from 0.7 to 1.3 times rigOp where nothing is in their way.
func (g *paceRig) op(chunks float64) {
	took := float64(rigOp) * (0.7 + 0.6*g.rng.Float64() + g.slow*chunks)
	if g.behind > 0 && g.rng.Float64()*g.behind < 1 {
		took += float64(rigChunk) * chunks
	}
	if g.cliff > 0 && g.under() >= g.cliff {
		took *= 10
	}
	if g.noise > 0 && g.rng.Float64()*g.noise < 1 {
		took *= 100
	}
	g.c.Ops, g.c.Timed, g.c.Took = g.c.Ops+1, g.c.Timed+1, g.c.Took+time.Duration(took)
	g.c.Tail[TailBucket(time.Duration(took))]++
}

func rig(g paceRig) *paceRig {
	g.rng = rand.New(rand.NewPCG(1, 2))
	return &g
}

func perSec(bytes int64, d time.Duration) int64 { return int64(float64(bytes) / d.Seconds()) }

func TestResyncWithoutClientsHasAllUnderWayThatIsOfUse(t *testing.T) {
	g := rig(paceRig{})
	g.play(time.Second)
	if want := alone.flying * alone.bytes; g.most != want {
		t.Errorf("%d bytes were under way, want %d", g.most, want)
	}
}

// What clients did before, or while nothing was to be resynced, is no reason to be slow.
func TestResyncBeginsAtOnceWhenClientsHaveGone(t *testing.T) {
	g := rig(paceRig{c: Clients{Ops: 1e6, Timed: 1e5, Took: time.Hour}})
	for range 3 {
		g.most = 0
		g.play(listenTime + 10*time.Millisecond)
		if want := alone.flying * alone.bytes; g.most != want {
			t.Errorf("%d bytes were under way, want %d", g.most, want)
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
			t.Errorf("%d bytes were under way before it was known what clients feel without", g.most)
		}
		if g.play(calmSlot); g.most != PieceSize {
			t.Errorf("%d bytes were under way then, want %d", g.most, PieceSize)
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
	if g.most > ChunkSize {
		t.Errorf("%d bytes were under way at a time", g.most)
	}
}

// A client in hundred that waits behind a chunk is nothing to all of them together, and all to the one.
func TestResyncDoesNotDoubleWhatTheSlowestOperationsOfClientsTake(t *testing.T) {
	for _, behind := range []float64{5, 20, 50} {
		g := rig(paceRig{ops: 8, behind: behind})
		for range 1000 {
			g.op(0)
		}
		alone := g.c.Tail
		g.play(2 * time.Second)
		before := g.c.Tail
		copied := g.play(30 * time.Second)
		with := g.c.Tail.since(&before)
		if ratio := slower(&with, &alone, perhaps); ratio > 2 {
			t.Errorf("of %.0f operations one waits: the slowest took %.2f times as long as without a resync", behind, ratio)
		}
		if rate := perSec(copied, 30*time.Second); rate < 30<<20 {
			t.Errorf("of %.0f operations one waits: %d bytes a second are copied, though small chunks cost nobody much", behind, rate)
		}
	}
}

// What was too much is tried again, for the load may have changed, but less and less often.
func TestWhatWasTooMuchIsTriedAgainLessAndLessOften(t *testing.T) {
	g := rig(paceRig{ops: 8, cliff: 2 * ChunkSize})
	g.play(20 * time.Second)
	tries := func(d time.Duration) (n int) {
		at := g.refused
		for end := g.now + d; g.now < end; {
			before := g.step
			g.play(10 * time.Millisecond)
			if before < at && g.step >= at {
				n++
			}
		}
		return n
	}
	first, later := tries(30*time.Second), tries(120*time.Second)
	if first == 0 || later == 0 || later >= 4*first {
		t.Errorf("tried %d times in 30 s, then %d times in 120 s", first, later)
	}
	g.cliff = 0
	g.play(latestRetry + 20*time.Second)
	if g.step != len(steps)-1 {
		t.Errorf("clients feel nothing any more, and it does %+v", steps[g.step])
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
		if rate := perSec(g.play(20*time.Second), 20*time.Second); rate < want*9/10 || rate > max(want*13/10, 12<<20) {
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
	if want := alone.flying * alone.bytes; g.most != want {
		t.Errorf("%d bytes are under way, want %d", g.most, want)
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

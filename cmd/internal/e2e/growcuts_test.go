package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev/failpoint"
)

// growCuts is one cluster whose volume grows and shrinks in turn, again and again, each time cut short at a fail point.
type growCuts struct {
	*crashing
	was    int64 // the size before
	size   int64
	stamps map[int64][]byte // written and flushed at the end of each size
}

// Between which sizes it goes to and fro: what was written behind the smaller one must never be seen again. The load writes to the
// first 32 MiB, and stamp to the end of either size.
const (
	cutSmall = 33 << 20
	cutLarge = cutSmall + 1<<20
)

// grows lists where a growth can be cut short. It is committed by the leader, which is the witness unless that is gone.
func grows() (all []site) {
	for _, n := range []string{"alpha", "beta"} {
		for _, p := range []failpoint.Point{failpoint.ResizeEnlarged, failpoint.ResizeCleared, failpoint.Resize, failpoint.ResizeMarked, failpoint.Resized} {
			all = append(all, site{p, n})
		}
	}
	return append(all, site{failpoint.ResizeCommitted, "gamma"})
}

// faults.md K109, K110: a node crashes at each point of a growth or shrink, half of the time with its power cut, again and again. It
// is made in the end, nothing acknowledged is lost, what is new is the same on both replicas, and reads as zeroes until it is
// written. HACLUSTER_GROWCUTS (make growcuts) is how often each node is crashed at each point; without, one of the data nodes'
// points is drawn, once.
func TestK110PowerCutsInAGrowth(t *testing.T) {
	rounds, sites, seed := 1, grows(), crashSeed(t)
	if text := os.Getenv("HACLUSTER_GROWCUTS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil || rounds < 1 {
			t.Fatalf("HACLUSTER_GROWCUTS is %q: a number of rounds is wanted", text)
		}
	} else {
		sites = slices.DeleteFunc(sites, func(s site) bool { return s.node == "gamma" })
		rand.New(rand.NewPCG(seed, 2)).Shuffle(len(sites), func(i, j int) { sites[i], sites[j] = sites[j], sites[i] })
		sites = sites[:1]
	}
	var cuts powerCuts
	c := &growCuts{crasher(t, seed, &cuts), cutSmall, cutSmall, map[int64][]byte{}}
	c.start()
	c.until("healthy", Healthy)
	l := c.load()
	for round := range rounds {
		for _, s := range sites {
			times := 1
			if s.node == "gamma" {
				times = 2 // its point is hit on no other
			}
			for range times {
				began := time.Now()
				c.cutAt(l, s)
				t.Logf("round %d, %v: %v, %d bytes", round, s, time.Since(began).Round(time.Millisecond), c.size)
			}
		}
	}
	c.readStamps()
	l.stop()
	for _, s := range sites {
		if n := c.count(s); n < uint64(rounds) {
			t.Errorf("%v was hit %d times", s, n)
		}
	}
	c.same()
	t.Logf("%d power cuts took %d changes back", cuts.cuts.Load(), cuts.taken.Load())
	if rounds > 1 && cuts.taken.Load() == 0 {
		t.Error("no power cut took anything back: this proves less than it says")
	}
}

// cutAt has the volume resized once more, a node crash on the way, and the size come into force all the same.
func (c *growCuts) cutAt(l *loading, s site) {
	c.t.Helper()
	before := c.count(s)
	c.Kill(s.node)
	c.arm(s, 1)
	c.start(s.node)
	c.until("healthy before the growth", Healthy)
	for try := 0; !c.dead(s.node); try++ {
		if try == 60 {
			c.t.Fatalf("%v: never hit", s)
		}
		if s.node == "gamma" {
			c.lead(s.node)
		}
		if c.vol().Size == c.size { // the first time; later: it was made without that node, which had to be there only half of the way
			c.was, c.size = c.size, cutSmall+cutLarge-c.size
			delete(c.stamps, cutLarge-4096) // cut off, or not written yet
		}
		c.grow(s.node)
	}
	c.crashed(s, before)
	cut, admissions := c.rng.IntN(2) == 0 && c.spare(s.node), c.admissions()
	c.revive(s, cut)
	c.healed(s, func() bool { return !cut || s.node == "gamma" || c.admissions() > admissions })
	for try := 0; c.vol().Size != c.size; try++ {
		if try == 60 {
			c.t.Fatalf("%v: it has %d bytes still, %d are wanted", s, c.vol().Size, c.size)
		}
		c.grow(s.node)
	}
	c.until("healthy with the new size", Healthy)
	c.stamp()
	l.more(20)
}

// grow asks for the size, or for the hand-over that a size waits for which was committed before. Either may fail: somebody
// crashes, leadership moves, or a busy machine has the standby dropped just then.
func (c *growCuts) grow(node string) {
	ctx, cancel := c.within()
	defer cancel()
	_, errs, code := c.Admin(ctx, "volume", "resize", Volume, fmt.Sprintf("%dMiB", c.size>>20), "--yes", "--accept-data-loss", "--disconnect-clients", "--timeout", "10s")
	if code == 0 || code == 1 && !strings.Contains(errs, "nothing is applied") {
		_, _, _ = c.Admin(ctx, "failover", Volume, "--timeout", "10s")
	}
	c.upTo(node, time.Second, c.isNow(func(s *apiStatus) bool { return Healthy(s) && s.Volumes[0].Size == c.size }))
}

// stamp checks that what is new reads as zeroes, and writes to the end.
func (c *growCuts) stamp() {
	c.t.Helper()
	dev := c.dial(c.URIs()...)
	defer dev.Close()
	if dev.Size() != c.size {
		c.t.Fatalf("a new client sees %d bytes, %d are wanted", dev.Size(), c.size)
	}
	c.zeroes(dev, c.was, c.size)
	at := c.size - 4096
	text := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(c.size)), 512)
	if _, err := dev.WriteAt(text, at); err != nil {
		c.t.Fatal(err)
	}
	if err := dev.Flush(); err != nil {
		c.t.Fatal(err)
	}
	c.stamps[at] = text
	c.readStamps()
}

func (c *growCuts) readStamps() {
	c.t.Helper()
	dev := c.dial(c.URIs()...)
	defer dev.Close()
	for at, want := range c.stamps {
		got := make([]byte, len(want))
		if _, err := dev.ReadAt(got, at); err != nil || !bytes.Equal(got, want) {
			c.t.Fatalf("what was written and flushed at %d reads as %x..., %v", at, got[:16], err)
		}
	}
}

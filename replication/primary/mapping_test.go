package primary

import (
	"testing"
	"time"

	"hacluster/blockdev"
)

// away drops s, which has a map that is known and durable on both, and writes a block without it.
func away(t *testing.T) (g *rig, at int64) {
	t.Helper()
	g = newRig(t, "s")
	g.silent = true
	n := g.up("s")
	g.c.Mapped(g.now, "s", n, nil)
	g.take()
	g.local(g.write(0), nil)
	g.ack("s", n, g.last("s"))
	g.local(g.flush(), nil)
	g.ack("s", n, g.last("s"))
	g.down("s", n)
	g.drop("s")
	g.local(g.write(2*chunk), nil)
	g.log = nil
	return g, 2 * chunk
}

func TestSameProcessIsComparedWhereSomethingIsBehindOnly(t *testing.T) { // R15
	g, at := away(t)
	n := g.up("s")
	if has(g.log, AskMap, "s") {
		t.Error("the same process is asked again")
	}
	if r, ok := g.c.TakeChunk(g.now, "s", n, 0); !ok || r != (blockdev.Range{Off: at, Len: 4096}) {
		t.Errorf("compares %v (%t), want the block that it missed", r, ok)
	}
	if r, ok := g.c.TakeChunk(g.now, "s", n, 0); ok {
		t.Errorf("compares %v too", r)
	}
}

// maps/DESIGN.md: what left the map in memory was not numbered.
func TestMapIsAskedForOfAnyOtherProcess(t *testing.T) {
	for name, hello := range map[string]Greeting{
		"another process":            {Incarnation: bootA, Process: 2, LastNum: 2},
		"another incarnation":        {Incarnation: bootB, Process: 1, LastNum: 2},
		"a prefix that went back":    {Incarnation: bootA, Process: 1, LastNum: 1},
		"another with nothing known": {Incarnation: bootA, Process: 2},
	} {
		g, _ := away(t)
		n := g.greet("s", hello)
		if !has(g.log, AskMap, "s") {
			t.Errorf("%s: its map is believed", name)
			continue
		}
		if r, ok := g.c.TakeChunk(g.now, "s", n, 0); ok || g.c.peers["s"].closing {
			t.Errorf("%s: compares %v, or closes, before the map is known", name, r)
		}
		g.c.Mapped(g.now, "s", n, []blockdev.Range{{Off: chunk, Len: chunk}})
		var got int64
		for r, ok := g.c.TakeChunk(g.now, "s", n, 0); ok; r, ok = g.c.TakeChunk(g.now, "s", n, 0) {
			got += r.Len
		}
		if got != chunk+4096 {
			t.Errorf("%s: %d bytes are compared, want the region that is marked and the block behind", name, got)
		}
	}
}

func TestFailedOrRestoredReplicaIsComparedWhole(t *testing.T) { // R16, R23
	for name, hello := range map[string]Greeting{
		"failed":    {Incarnation: bootA, Process: 1, LastNum: 2, Failed: true},
		"went back": {Incarnation: bootA, Process: 1, LastNum: 2, WentBack: "its map is older"},
	} {
		g, _ := away(t)
		g.greet("s", hello)
		if p := g.c.Peer("s"); p.RemainingBytes != volSize {
			t.Errorf("%s: %d bytes are compared", name, p.RemainingBytes)
		}
	}
}

func TestMemberWhoseMapWentBackIsDropped(t *testing.T) { // R16
	g := newRig(t, "s")
	g.greet("s", Greeting{Incarnation: bootA, Process: 1, WentBack: "its map is older"})
	if !drops(g.log, "s") {
		t.Error("it stays a member")
	}
}

func TestFlushOfOurOwnIsDueOnlyWhenMarksWaitForNothingElse(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	g.now = g.now.Add(flushAfter + time.Second)
	if g.c.FlushDue(g.now, false) {
		t.Error("due although nothing waits for it")
	}
	g.local(g.write(0), nil)
	g.ack("s", n, g.last("s"))
	if g.c.FlushDue(g.now, false) {
		t.Error("due although a client has just written")
	}
	if !g.c.FlushDue(g.now, true) {
		t.Error("not due although it is worth one")
	}
	g.now = g.now.Add(flushAfter)
	if !g.c.FlushDue(g.now, false) {
		t.Error("not due although a mark waits for it")
	}
	g.down("s", n)
	if g.c.FlushDue(g.now, false) {
		t.Error("due while a member is away: it would owe an answer")
	}
	n = g.up("s")
	f := g.flush()
	if g.c.FlushDue(g.now, false) {
		t.Error("due although one is under way")
	}
	g.local(f, nil)
	g.ack("s", n, g.last("s"))
	g.now = g.now.Add(2 * flushAfter)
	if g.c.FlushDue(g.now, false) {
		t.Error("due although all is durable")
	}
}

func TestFlushOfOurOwnIsDueInTheEndAlsoUnderWriters(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	for began := g.now; ; g.now = g.now.Add(flushAfter / 2) {
		g.local(g.write(0), nil)
		g.ack("s", n, g.last("s"))
		if due := g.c.FlushDue(g.now, false); due || g.now.Sub(began) > flushLatest {
			if at := g.now.Sub(began); !due || at < flushLatest {
				t.Errorf("after %v: due %t, want %v", at, due, flushLatest)
			}
			return
		}
	}
}

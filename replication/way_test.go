package replication

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
)

// cascade is a volume in async with three replicas: the far one of them is fed by way of the near one, and clients write.
func formedCascade(t *testing.T, near, far string) (l *lab, a *labNode, c *clientConn) {
	t.Helper()
	l = formed(t, labConfig{mode: cluster.ModeAsync, bound: primary.Bound{Bytes: 8 << 20, Time: 24 * time.Hour, Patience: 16 * dropAfter}}, "a", "b", "c")
	a = l.nodes["a"]
	c = a.serving().client(t)
	a.settled("b")
	a.settled("c")
	a.get().SetWays(map[string]string{far: near})
	l.awaitPassing("the stream to go its way", wayPause, func() bool { return a.status(far).By == near && a.peer(far).Connected })
	return l, a, c
}

// goesOn has clients write until the far replica has all, sent to it directly.
func goesOn(l *lab, a *labNode, c *clientConn, far string) {
	l.t.Helper()
	if err := c.write(0, pattern(4096, 3)); err != nil {
		l.t.Fatal(err)
	}
	l.awaitPassing("the far one to be sent to directly, and to have all", dropAfter, func() bool {
		p := a.status(far)
		return p.By == "" && p.Connected && p.UnackedBytes == 0
	})
	if !l.volume().IsMember(far) {
		l.t.Fatalf("%s was dropped, which is reached directly", far)
	}
}

// A near node that goes silent, without an end of its connections, does not take the far one with it, in whatever order they are named.
func TestFarReplicaOutlivesTheSilenceOfTheNearOne(t *testing.T) {
	for _, c := range []struct{ near, far string }{{"b", "c"}, {"c", "b"}} {
		l, a, cl := formedCascade(t, c.near, c.far)
		l.nodes[c.near].cable.hang()
		goesOn(l, a, cl, c.far)
		l.nodes[c.near].cable.mend()
	}
}

// A way that lets greetings through and nothing else is given up, and for longer each time.
func TestWayThatCarriesNothingIsGivenUp(t *testing.T) {
	l, a, c := formedCascade(t, "b", "c")
	relay := &l.nodes["b"].relay
	relay.swallow.Store(true)
	goesOn(l, a, c, "c")
	was, at := relay.opened.Load(), l.now()
	for range 40 {
		l.pass(wayPause)
		goesOn(l, a, c, "c")
	}
	took := l.now().Sub(at)
	if n := relay.opened.Load() - was; n == 0 || n > 8+int64(took/longestWayPause) {
		t.Errorf("the way was tried %d times in %v, want a few", n, took)
	}
	relay.swallow.Store(false)
	l.awaitPassing("the stream to go its way again", longestWayPause/4, func() bool { return a.status("c").By == "b" && a.peer("c").Connected })
}

// The far node does not take the stream from the near one, as a program does that knows no ways.
func TestWayThatTheFarNodeRefusesIsGivenUp(t *testing.T) {
	l, a, c := formedCascade(t, "b", "c")
	l.nodes["b"].relay.refuse.Store(true)
	l.nodes["b"].relay.beyond.snap()
	for range 10 {
		goesOn(l, a, c, "c")
		l.pass(wayPause)
	}
}

// The end of the near one's stream ends those that go by way of it, and what is set no more is not gone any more.
func TestWaysEndWithTheirStreamAndTheirSetting(t *testing.T) {
	l, a, c := formedCascade(t, "b", "c")
	l.nodes["b"].cable.snap()
	if err := c.write(4096, pattern(4096, 4)); err != nil {
		t.Fatal(err)
	}
	l.awaitPassing("the far one to have all", wayPause, func() bool { p := a.status("c"); return p.Connected && p.UnackedBytes == 0 })
	l.awaitPassing("the stream to go its way again", wayPause, func() bool { return a.status("c").By == "b" && a.peer("c").Connected })
	a.get().SetWays(nil)
	l.pass(wayPause)
	goesOn(l, a, c, "c")
	l.same("a", "b", "c")
}

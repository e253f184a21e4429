package node

import (
	"strings"
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// R10: a person's word that a node is off is not taken while a lease of it may be in force, whatever the node sees that the person asked.
func TestWordThatANodeIsOffWaitsForItsLease(t *testing.T) {
	const lease = time.Second
	at := func(d time.Duration) cluster.Instant { return cluster.Instant(time.Hour + d) }
	for name, c := range map[string]struct {
		heard, open map[string]cluster.Instant
		node        string
		now         cluster.Instant
		says        string
	}{
		"it leads":                 {node: "alpha", now: at(time.Hour), says: "leads the group"},
		"it was heard":             {node: "beta", heard: map[string]cluster.Instant{"beta": at(9 * lease)}, now: at(10 * lease), says: "heard from beta 1s ago"},
		"it was heard a lease ago": {node: "beta", heard: map[string]cluster.Instant{"beta": at(9 * lease)}, now: at(10*lease + 20*time.Millisecond)},
		"another was heard":        {node: "beta", heard: map[string]cluster.Instant{"gamma": at(9 * lease)}, now: at(9 * lease)},
		"it was not heard since the leader changed":    {node: "beta", now: at(lease), says: "alpha leads since 1s ago"},
		"nor for a lease since":                        {node: "beta", now: at(lease + 20*time.Millisecond)},
		"it asked long ago and was granted just now":   {node: "beta", heard: map[string]cluster.Instant{"beta": at(5 * lease)}, open: map[string]cluster.Instant{"beta": at(11 * lease)}, now: at(10 * lease), says: "say so again in 2s"},
		"it asked long ago, and its grant has run out": {node: "beta", heard: map[string]cluster.Instant{"beta": at(5 * lease)}, open: map[string]cluster.Instant{"beta": at(10 * lease)}, now: at(10 * lease)},
	} {
		l := leadingBy(t, nil, time.Minute)
		l.n.me.Name, l.began, l.timers.Lease, l.heard, l.open = "alpha", at(0), lease, c.heard, c.open
		if got := l.confirmed(c.now, c.node); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q; want %q", name, got, c.says)
		}
	}
}

// Whoever it is given to, the word goes by the leader, which refuses it with the reason before it gets into the log.
func TestLeaderJudgesTheWordThatANodeIsOff(t *testing.T) {
	r := aloneInRaft(t, slowMachine{make(chan struct{})})
	l := leadingBy(t, r, time.Minute)
	l.n.me.Name, l.timers.Lease = "w", time.Second
	l.inbox = make(chan func(cluster.Instant), 8)
	l.core = failover.NewLeader(failover.Config{Self: "w", Term: 1, Lease: time.Second}, 0)
	l.heard = map[string]cluster.Instant{"p": 5}
	l.goes.Go(func() {
		for {
			select {
			case f := <-l.inbox:
				f(6)
			case <-l.ctx.Done():
				return
			}
		}
	})
	before := r.LastIndex()
	res, err := l.propose(t.Context(), cluster.Command{By: "s", FenceNode: &cluster.FenceNode{Node: "p", Word: cluster.FenceConfirmed, Start: 1, Attempt: 1}})
	if err != nil || res.Index != 0 || !strings.Contains(res.Void, "heard from p") {
		t.Errorf("%+v, %v", res, err)
	}
	if n := r.LastIndex() - before; n != 0 {
		t.Errorf("%d entries came", n)
	}
}

func TestOneTestOfAgentsAtATimeForEachNode(t *testing.T) {
	var tests fenceTests
	if !tests.begin("a") || tests.begin("a") || !tests.begin("b") {
		t.Error("not one for each node")
	}
	tests.end("a")
	if !tests.begin("a") || tests.begin("b") {
		t.Error("the end of one is not heeded")
	}
}

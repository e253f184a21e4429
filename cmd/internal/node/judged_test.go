package node

import (
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// R4: a drop that waits behind another proposal is held against the leases when it is sent, not when it came: then it may be another's
// volume.
func TestDropIsJudgedWhenItIsSent(t *testing.T) {
	m := slowMachine{make(chan struct{})}
	r := aloneInRaft(t, m)
	l := leadingBy(t, r, time.Minute)
	l.n.cfg.Timers = config.Timers{RTO: time.Minute, Tick: time.Millisecond}
	l.inbox = make(chan func(cluster.Instant), 8)
	l.core = failover.NewLeader(failover.Config{Self: "w", Term: 1, Lease: time.Second}, 0)
	l.joint = &gather{send: l.judged, time: func() time.Duration { return time.Minute }, goes: func(f func()) { l.goes.Go(f) }, ctx: l.ctx}
	l.goes.Go(func() {
		for {
			select {
			case f := <-l.inbox:
				f(1)
			case <-l.ctx.Done():
				return
			}
		}
	})
	drop := func(by string) cluster.Command {
		return cluster.Command{By: by, Drop: &cluster.Drop{On: cluster.On{Volume: "v", Epoch: 1, Version: 1}, Node: "s"}}
	}
	before := r.LastIndex()
	first := make(chan error, 1)
	go func() { _, err := l.propose(t.Context(), drop("s")); first <- err }() // its own word needs no lease
	for r.LastIndex() == before {
		time.Sleep(time.Millisecond)
	}
	others := make(chan error, 2)
	for range 2 {
		go func() { _, err := l.propose(t.Context(), drop("p")); others <- err }()
	}
	for waiting := 0; waiting < 2; time.Sleep(time.Millisecond) {
		l.joint.mu.Lock()
		waiting = len(l.joint.waiting)
		l.joint.mu.Unlock()
	}
	in := r.LastIndex()
	close(m.let)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-others; err == nil || !strings.Contains(err.Error(), "without a lease in force") {
			t.Errorf("%v", err)
		}
	}
	if err := r.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.LastIndex() - in; n > 2 { // barriers
		t.Errorf("%d entries came", n)
	}
}

package replication

import (
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

// R23, R26: a replica is no candidate from the moment of a failure, not from that of its note: a superblock may be as slow
// as the disk that failed, and a stalled operation may return well meanwhile. One that is promoted all the same, on what
// it said before, gives the role on and does not serve.
func TestFailureThatIsNotNotedYetKeepsFromTheRole(t *testing.T) {
	l := formed(t, labConfig{deadline: 100 * time.Millisecond}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	noting, release := b.super.holdFailure()
	defer close(release)
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Stall: true})
	c.begin(writeReq(0, pattern(4096, 1)))
	<-noting
	b.super.intercept(nil)
	held.Remove()
	l.await("the stall to be over", func() bool { return !b.dev.Stalled() })
	if rep := b.get().Report(); rep.Usable() {
		t.Errorf("it reports to be fit for the role: %+v", rep)
	}
	b.mu.Lock()
	b.onGiveUp = func(string, bool) error { return nil }
	b.mu.Unlock()
	l.promote("b", cluster.BasisUnchanged)
	b.grant()
	l.await("the role to be given on", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.giveUps) > 0 || b.replica.Tenure() != nil
	})
	if b.get().Tenure() != nil {
		t.Error("it serves before its failure is noted")
	}
}

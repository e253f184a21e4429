package replication

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

// R25: the mark of a clean stop is gone from stable storage before a primary serves, for its first write makes it untrue.
func TestCleanStopMarkIsRemovedBeforeAPrimaryServes(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	if err := a.halt(); err != nil {
		t.Fatal(err)
	}
	if a.sb.mark() == nil {
		t.Fatal("the clean stop left no mark")
	}
	a.start()
	l.promote("a", cluster.BasisUnchanged)
	a.grant()
	a.serving()
	if m := a.sb.mark(); m != nil {
		t.Errorf("it serves with the mark %+v", m)
	}
}

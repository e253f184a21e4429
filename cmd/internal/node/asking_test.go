package node

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

// A node that starts with a long log proposes its registration once, however many entries it has to apply before it sees
// it, and once more only if that was in vain; one that had no answer asks again after a pause.
func TestLogIsAppliedAgainWithoutNewProposals(t *testing.T) {
	var a asking
	proposals := 0
	for applied := range uint64(5000) {
		if now := cluster.Instant(applied); a.again(now, applied) {
			proposals++
			a = asking{next: now + 100, until: 4999}
		}
	}
	if proposals != 2 { // at the start, and when its entry has come by and was void
		t.Errorf("%d proposals while 5000 entries were applied", proposals)
	}
	a = asking{next: 100} // no answer
	if a.again(99, 7) || !a.again(100, 7) {
		t.Errorf("%+v: asked again at 99 %v, at 100 %v", a, a.again(99, 7), a.again(100, 7))
	}
}

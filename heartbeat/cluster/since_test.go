package cluster

import "testing"

// A device that outlives the daemon asks again what was not answered, only where nobody else was primary meanwhile and nothing
// that was acknowledged was lost.
func TestSinceIsTheFirstEpochOfAnUnbrokenTime(t *testing.T) {
	s := formed(t)
	as := func(node string, basis Basis) Epoch {
		t.Helper()
		v := s.Volumes["v"]
		v.Members = map[string]Member{"p": {incA, 1}, "s": {incA, 1}}
		s.Volumes["v"] = v
		return ok(t, s, Command{Promote: promote(s, node, basis)}).Volume.Since
	}
	if got := s.Volumes["v"].Since; got != 0 {
		t.Fatalf("since %d of a volume whose promotion nobody noted", got)
	}
	as("p", BasisUnchanged)
	if got := s.Volumes["v"].Since; got != 0 {
		t.Errorf("promoted again after it was not known: since %d", got)
	}
	first := as("s", BasisUnchanged)
	if first != s.Volumes["v"].Epoch {
		t.Errorf("another node: since %d in epoch %d", first, s.Volumes["v"].Epoch)
	}
	if got := as("s", BasisUnchanged); got != first {
		t.Errorf("the same node once more: since %d, want %d", got, first)
	}
	if got := as("s", BasisForced); got != s.Volumes["v"].Epoch {
		t.Errorf("the same node by force, which may have lost what it acknowledged: since %d in epoch %d", got, s.Volumes["v"].Epoch)
	}
}

func TestBasesThatKeepWhatWasAcknowledged(t *testing.T) {
	for basis, want := range map[Basis]bool{BasisUnchanged: true, BasisClean: true, BasisUnmarked: true, BasisHandOver: true,
		BasisLastPrimary: false, BasisAllLost: false, BasisForced: false, BasisFirst: false, "other": false} {
		if basis.keepsAll() != want {
			t.Errorf("%s: %v", basis, !want)
		}
	}
}

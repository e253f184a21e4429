package node

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

// R16: a map of marks without the superblock that it was made with, or beside one that is older than what the node is
// known to have stored, says nothing.
func TestMarksBesideAnotherSuperblockAreDoubted(t *testing.T) {
	for name, c := range map[string]struct {
		primary string
		made    bool
		epoch   cluster.Epoch
		want    bool
	}{
		"as it was left":                      {"a", false, 5, false},
		"the superblock was made anew":        {"b", true, 0, true},
		"restored, of the primary":            {"a", false, 4, true},
		"of a node that was away meanwhile":   {"b", false, 4, false},
		"the cluster's record is not so far":  {"a", false, 6, false},
		"made anew for a volume without life": {"", true, 0, true},
	} {
		why := doubtOf(cluster.Volume{Primary: c.primary, Epoch: 5}, "a", c.made, c.epoch)
		if (why != "") != c.want {
			t.Errorf("%s: %q", name, why)
		}
	}
}

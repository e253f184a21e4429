package node

import (
	"strings"
	"testing"

	"hacluster/cmd/internal/control"
)

// faults.md G54: a node that speaks another version is refused with both numbers; so is one that nobody meant.
func TestG54NodeOfAnotherVersionIsRefused(t *testing.T) {
	for _, c := range []struct {
		r    control.HelloReply
		want string
	}{
		{control.HelloReply{Version: control.Version, Cluster: "c", Node: "beta"}, ""},
		{control.HelloReply{Version: control.Version - 1, Cluster: "c", Node: "beta"}, "it speaks version 5, this node 6: run the same version everywhere"},
		{control.HelloReply{Version: control.Version + 1, Cluster: "c", Node: "beta"}, "it speaks version 7, this node 6: run the same version everywhere"},
		{control.HelloReply{Version: control.Version, Cluster: "d", Node: "beta"}, `node "beta" of cluster "d" is there: check the address`},
		{control.HelloReply{Version: control.Version, Cluster: "c", Node: "gamma"}, `node "gamma" of cluster "c" is there: check the address`},
	} {
		err := greeted(&c.r, "c", "beta")
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.r, err, c.want)
		}
	}
}

package node

import (
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// apart is a view of a volume whose primary p is gone, and whose other member s is at another site.
func apart() (*view, *cluster.Volume) {
	inc := cluster.Incarnation{Boot: "a", Attachment: "1"}
	vol := cluster.Volume{Name: "v", Mode: cluster.ModeSync, Epoch: 3, Primary: "p", Process: 1, Replicas: []cluster.Replica{{Node: "p"}, {Node: "s"}},
		Members: map[string]cluster.Member{"p": {Incarnation: inc, Process: 1}, "s": {Incarnation: inc, Process: 1}}}
	v := &view{quorum: true, state: &cluster.State{Volumes: map[string]cluster.Volume{"v": vol}}, sites: failover.Sites{Of: map[string]string{"s": "far"}},
		local: map[string]*control.LocalReply{"s": {Reports: []cluster.Report{{Volume: "v", Incarnation: inc, Process: 1, Epoch: 3, Held: true}}}}}
	return v, &vol
}

func TestStatusSaysThatAPersonMovesTheRoleToAnotherSite(t *testing.T) {
	v, vol := apart()
	if why := v.notServed(vol); !strings.Contains(why, "ha-admin failover v --to s") || !strings.Contains(why, "far") {
		t.Errorf("%q", why)
	}
	if r := v.replica(vol, nil, "s"); r.ByHand != "is at site far" {
		t.Errorf("%+v", r)
	}
	if err := mayFailover(v, vol, api.FailoverRequest{Volume: "v"}); api.KindOf(err) != api.KindRefused || !strings.Contains(err.Error(), "--to") {
		t.Errorf("without a name: %v", err)
	}
	if err := mayFailover(v, vol, api.FailoverRequest{Volume: "v", To: "s"}); err != nil {
		t.Errorf("by name: %v", err)
	}
	v.sites.Auto = map[string]bool{"v": true}
	if why := v.notServed(vol); strings.Contains(why, "--to s") {
		t.Errorf("where it goes by itself: %q", why)
	}
	if err := mayFailover(v, vol, api.FailoverRequest{Volume: "v"}); err != nil || v.onlyBy(vol, v.byWord) != "" {
		t.Errorf("where it goes by itself: %v", err)
	}
}

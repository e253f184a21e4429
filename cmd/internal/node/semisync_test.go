package node

import (
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// Where nobody follows without a person, and where one that writes what it received is waited for, the status says so.
func TestSemisyncSaysWhatAPromotionWaitsFor(t *testing.T) {
	before, after := cluster.Incarnation{Boot: "1", Attachment: "x"}, cluster.Incarnation{Boot: "2", Attachment: "x"}
	vol := &cluster.Volume{Name: "db", Mode: cluster.ModeSemisync, Epoch: 3, Primary: "a", Process: 1, Served: "a", Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}},
		Members: map[string]cluster.Member{"a": {Incarnation: before, Process: 1}, "b": {Incarnation: before, Process: 1}}}
	v := &view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{
		"a": {Node: "a", Reports: []cluster.Report{{Volume: "db", Incarnation: after, Process: 2, Epoch: 3, Held: true}}},
		"b": {Node: "b", Reports: []cluster.Report{{Volume: "db", Incarnation: before, Process: 2, Epoch: 3, Held: true}}},
	}}
	if got := v.notServed(vol); !strings.Contains(got, "--force") {
		t.Errorf("a lost its machine's memory and b its process: %q", got)
	}
	v.local = map[string]*control.LocalReply{
		"b": {Node: "b", Reports: []cluster.Report{{Volume: "db", Incarnation: before, Process: 1, Epoch: 3, Held: true, Taken: 9, LastSeq: 7}}},
	}
	if got := v.notServed(vol); !strings.Contains(got, "b follows when its disk has written what it received (7 of 9") {
		t.Errorf("b waits for its disk: %q", got)
	}
}

// R6, R25: in semisync a new process of a standby is promoted on a person's word only, who is told what may be lost, and the
// status does not call it promotable.
func TestSemisyncNewProcessOfAStandbyNeedsConsent(t *testing.T) {
	inc := cluster.Incarnation{Boot: "a", Attachment: "x"}
	for _, mode := range []string{cluster.ModeSync, cluster.ModeSemisync} {
		vol := cluster.Volume{Name: "v", Size: 1 << 30, Mode: mode, Epoch: 3, Version: 9, Primary: "p", Process: 1, Served: "p",
			Replicas: []cluster.Replica{{Node: "p"}, {Node: "s"}},
			Members:  map[string]cluster.Member{"p": {Incarnation: inc, Process: 1}, "s": {Incarnation: inc, Process: 1}}}
		rep := cluster.Report{Volume: "v", Incarnation: inc, Process: 2, Epoch: 3, Held: true}
		v := view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{"s": {Reports: []cluster.Report{rep}}}}
		v.state.Volumes["v"] = vol
		err := mayFailover(&v, &vol, api.FailoverRequest{Volume: "v", To: "s", Force: true})
		promotable, point := v.volume(&vol).Promotable, v.point(&vol, "s")
		if mode == cluster.ModeSync {
			if err != nil || len(promotable) != 1 || point.LossBytes != 0 {
				t.Errorf("sync: %v, promotable %v, %+v", err, promotable, point)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "new process") || !strings.Contains(err.Error(), "--accept-data-loss") {
			t.Errorf("without consent: %v", err)
		}
		if err := mayFailover(&v, &vol, api.FailoverRequest{Volume: "v", To: "s", Force: true, AcceptDataLoss: true}); err != nil {
			t.Errorf("with consent: %v", err)
		}
		if len(promotable) != 0 || point == nil || point.LossBytes == 0 {
			t.Errorf("promotable %v, by force %+v", promotable, point)
		}
	}
}

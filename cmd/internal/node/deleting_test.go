package node

import (
	"strings"
	"testing"

	"hacluster/blockdev/rescue"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// A plan that deletes data names each rescue image that goes with it, where it lies and how large it is, and says where nobody
// knows.
func TestPlanNamesTheRescueImagesThatItDeletes(t *testing.T) { // R19
	st := cluster.NewState()
	replicas := []cluster.Replica{{Node: "alpha"}, {Node: "beta"}, {Node: "gamma"}}
	st.Volumes["gone"] = cluster.Volume{Name: "gone", Replicas: replicas}
	st.Volumes["stays"] = cluster.Volume{Name: "stays", Replicas: replicas}
	image := func(volume, id string) control.Rescued {
		return control.Rescued{Volume: volume, Image: rescue.Info{ID: id, Epoch: 5, Bytes: 8192, File: 12800}}
	}
	v := &view{state: st, local: map[string]*control.LocalReply{
		"alpha": {Rescued: []control.Rescued{image("gone", "alpha-e5-1"), image("stays", "alpha-e5-2"), image("gone", "alpha-e5-3")}},
		"beta":  {},
	}}
	steps := v.deletedImages(&config.Config{Volumes: []config.Volume{{Name: "stays"}}})
	if len(steps) != 3 {
		t.Fatalf("steps %+v, want two images and a node that does not answer", steps)
	}
	for i, want := range []string{"alpha-e5-1", "alpha-e5-3"} {
		if s := steps[i]; s.Kind != config.StepRemove || !strings.Contains(s.What, "volume gone") || !strings.Contains(s.What, want) ||
			!strings.Contains(s.Text, "on alpha") || !strings.Contains(s.Text, "8192 bytes") || !strings.Contains(s.Text, "12800 bytes") {
			t.Errorf("%+v, want image %s", s, want)
		}
	}
	if s := steps[2]; !strings.Contains(s.What, "gamma") || !strings.Contains(s.Text, "not answer") {
		t.Errorf("of a node that is away: %+v", s)
	}
}

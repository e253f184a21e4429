package node

import (
	"strings"
	"testing"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// A size that is decided and not in force is shown, with what it waits for.
func TestStatusTellsWhatAGrowthWaitsFor(t *testing.T) {
	inc := cluster.Incarnation{Boot: "1", Attachment: "x"}
	vol := &cluster.Volume{Name: "db", Size: 1 << 30, Grow: 2 << 30, Epoch: 3, Primary: "a", Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}},
		Members: map[string]cluster.Member{"a": {Incarnation: inc}, "b": {Incarnation: inc}}}
	v := &view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{}}
	if s := v.volume(vol); s.Size != 1<<30 || s.NextSize != 2<<30 || !strings.Contains(s.NextSizeWaitsFor, "no replica can take the role over now") {
		t.Errorf("while b is away: %d, %d: %s", s.Size, s.NextSize, s.NextSizeWaitsFor)
	}
	v.local["b"] = &control.LocalReply{Reports: []cluster.Report{{Volume: "db", Incarnation: inc, Epoch: 3, Held: true}}}
	if s := v.volume(vol); !strings.Contains(s.NextSizeWaitsFor, "`ha-admin failover db`") || !strings.Contains(s.NextSizeWaitsFor, "to b") {
		t.Errorf("while b could: %s", s.NextSizeWaitsFor)
	}
	delete(vol.Members, "b")
	if s := v.volume(vol); !strings.Contains(s.NextSizeWaitsFor, "b has to be in sync first") {
		t.Errorf("while b is being resynced: %s", s.NextSizeWaitsFor)
	}
	vol.Grow = 0
	if s := v.volume(vol); s.NextSize != 0 || s.NextSizeWaitsFor != "" {
		t.Errorf("one that stays: %d: %s", s.NextSize, s.NextSizeWaitsFor)
	}
}

// What a promotion by force gave up is in the applied configuration: a file that says the same must not be told that it says what
// runs.
func TestGrowthThatWasGivenUpIsOfferedAgain(t *testing.T) {
	of := func(size int64) *config.Config {
		return &config.Config{Volumes: []config.Volume{{Name: "db", Size: size}}}
	}
	for name, c := range map[string]struct {
		grow, applied int64
		steps         int
	}{"given up": {0, 2 << 30, 1}, "waiting": {2 << 30, 2 << 30, 0}, "new": {0, 1 << 30, 0}} {
		st := cluster.NewState()
		st.Volumes["db"] = cluster.Volume{Name: "db", Size: 1 << 30, Grow: c.grow}
		if steps := overtaken(st, of(c.applied), of(2<<30)); len(steps) != c.steps {
			t.Errorf("%s: %v", name, steps)
		}
	}
}

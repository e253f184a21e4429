package node

import (
	"reflect"
	"strings"
	"testing"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

func TestModesThatAPlanChanges(t *testing.T) {
	st := cluster.NewState()
	st.Volumes["db"] = cluster.Volume{Name: "db", ID: "i", Epoch: 3, Version: 7, Mode: cluster.ModeSync, NextMode: cluster.ModeSemisync}
	change := func(mode string) []cluster.ChangeMode {
		return []cluster.ChangeMode{{Name: "db", ID: "i", Epoch: 3, Version: 7, Mode: mode}}
	}
	for file, want := range map[config.Mode][]cluster.ChangeMode{
		config.ModeSemisync: nil, config.ModeSync: change("sync"), config.ModeAsync: change("async"),
	} {
		if got := modes(st, &config.Config{Volumes: []config.Volume{{Name: "db", Mode: file}, {Name: "new", Mode: config.ModeSync}}}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", file, got, want)
		}
	}
	if got := modesWait(st, change("semisync")); len(got) != 1 {
		t.Errorf("it waits: %+v", got)
	}
	if got := modesWait(st, change("async")); len(got) != 0 {
		t.Errorf("another one came between: %+v", got)
	}
}

func TestStatusAndApplySayWhatAModeWaitsFor(t *testing.T) {
	vol := cluster.Volume{Name: "db", ID: "i", Epoch: 3, Mode: cluster.ModeSync, NextMode: cluster.ModeSemisync, Primary: "a", Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}},
		Members: map[string]cluster.Member{"a": {}, "b": {}}}
	v := view{state: cluster.NewState(), quorum: true, local: map[string]*control.LocalReply{"a": {Node: "a", Serving: []control.Serving{{Volume: "db", Epoch: 3, ModeWaits: "b is being admitted"}}}}}
	v.state.Volumes["db"] = vol
	if s := v.volume(&vol); s.Mode != "sync" || s.NextMode != "semisync" || s.NextModeWaitsFor != "b is being admitted" {
		t.Errorf("status: %s, %s: %s", s.Mode, s.NextMode, s.NextModeWaitsFor)
	}
	err := modesLate(v, []cluster.ChangeMode{{Name: "db", ID: "i", Mode: "semisync"}}, 2)
	if err == nil || !strings.Contains(err.Error(), "1 of 2 modes") || !strings.Contains(err.Error(), "b is being admitted") {
		t.Errorf("apply: %v", err)
	}
	delete(v.local, "a")
	if s := v.volume(&vol); !strings.Contains(s.NextModeWaitsFor, "its primary a does not serve") {
		t.Errorf("nobody serves: %s", s.NextModeWaitsFor)
	}
	vol.Primary = ""
	if s := v.volume(&vol); !strings.Contains(s.NextModeWaitsFor, "none was promoted") {
		t.Errorf("no primary: %s", s.NextModeWaitsFor)
	}
	vol.NextMode = ""
	if s := v.volume(&vol); s.NextMode != "" || s.NextModeWaitsFor != "" {
		t.Errorf("one that stays: %s: %s", s.NextMode, s.NextModeWaitsFor)
	}
}

package node

import (
	"testing"

	"hacluster/blockdev/frontend/attach"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// A restarted daemon applies the cluster's records of before one by one. None of them is held against a device that outlived the
// daemon before it; the first that may be is one that has this very process.
func TestDeviceIsNotJudgedByARecordOfBeforeTheRestart(t *testing.T) {
	n := &Node{cfg: &config.Config{}, state: newStateStore(), readyc: make(chan struct{})}
	n.me.Name = "alpha"
	n.vols = &volumes{n: n}
	d := &devices{n: n}
	v := &device{running: true, told: &attach.Reply{ID: "v2", Epoch: 5, Size: 8}}
	record := func(vol *cluster.Volume) {
		st := cluster.NewState()
		st.ID = "c"
		if vol != nil {
			st.Volumes["vol"] = *vol
		}
		n.state.mu.Lock()
		n.state.setLocked(st)
		n.state.mu.Unlock()
	}
	records := map[string]*cluster.Volume{
		"the volume is not there":          nil,
		"an earlier volume of that name":   {ID: "v1", Primary: "alpha", Epoch: 5, Since: 5},
		"another is primary":               {ID: "v2", Primary: "beta", Epoch: 6, Since: 6},
		"another was primary between":      {ID: "v2", Primary: "alpha", Epoch: 7, Since: 7},
		"an earlier one, another's, newer": {ID: "v1", Primary: "beta", Epoch: 9, Since: 9},
	}
	for name, vol := range records {
		record(vol)
		if a, why := attach.Decide(d.view(n.cfg, "vol", v)); a == attach.Abandon {
			t.Errorf("%s, and this process is not registered: the device is given up: %s", name, why)
		}
	}
	close(n.readyc)
	for name, vol := range records {
		record(vol)
		if a, why := attach.Decide(d.view(n.cfg, "vol", v)); a != attach.Abandon {
			t.Errorf("%s: %v (%s), want the device to be given up", name, a, why)
		}
	}
	record(&cluster.Volume{ID: "v2", Primary: "alpha", Epoch: 6, Since: 5})
	if a, why := attach.Decide(d.view(n.cfg, "vol", v)); a == attach.Abandon {
		t.Errorf("primary without a break: the device is given up: %s", why)
	}
}

package node

import (
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// asyncView is a healthy volume in async of which beta lacks a little.
func asyncView() (*view, *cluster.Volume) {
	inc := cluster.Incarnation{Boot: "1", Attachment: "x"}
	vol := &cluster.Volume{Name: "db", Size: 1 << 30, Mode: cluster.ModeAsync, Epoch: 3, Primary: "alpha", Process: 1, Served: "alpha",
		Replicas: []cluster.Replica{{Node: "alpha"}, {Node: "beta"}},
		Members:  map[string]cluster.Member{"alpha": {Incarnation: inc, Process: 1}, "beta": {Incarnation: inc, Process: 1}}}
	rep := func() []cluster.Report {
		return []cluster.Report{{Volume: "db", Incarnation: inc, Process: 1, Epoch: 3, Held: true}}
	}
	v := &view{quorum: true, state: cluster.NewState(), bounds: map[string]*control.Bound{"db": boundFrom(config.Async{MaxLagBytes: 2000, MaxLag: 7 * time.Second, Patience: time.Second})},
		local: map[string]*control.LocalReply{"beta": {Node: "beta", Reports: rep()}, "alpha": {Node: "alpha", Reports: rep(), Serving: []control.Serving{{Volume: "db", Epoch: 3,
			Bound: &control.Bound{Bytes: 1000, Ms: 5000, PatienceMs: 10000}, Peers: []control.Peer{{Node: "beta", Connected: true, UnackedBytes: 999999, LagMs: 300, Lag: &control.Lag{Bytes: 100, Ms: 300, PerMille: 100}}}}}}}}
	v.state.Volumes["db"] = *vol
	return v, vol
}

func TestStatusSaysWhatAFailoverInAsyncWouldLose(t *testing.T) {
	v, vol := asyncView()
	s := v.volume(vol)
	a := s.Async
	if a == nil || a.LossBytes == nil || *a.LossBytes != 100 || *a.LossMs != 300 || a.MaxLagBytes != 1000 || a.MaxLagMs != 5000 || a.PatienceMs != 10000 || a.UsedPercent != 10 || a.Writers != api.WritersFree || a.Reason != "" {
		t.Fatalf("%+v", a)
	}
	if r := s.Replicas[1]; r.LagBytes != 100 || r.LagMs != 300 {
		t.Errorf("the lag is what clients were told of, not what is on its way: %+v", r)
	}
	if p := s.Replicas[1].Point; p == nil || p.LossBytes != 100 || p.At == nil || wallClock().Sub(*p.At) < 300*time.Millisecond {
		t.Errorf("by force: %+v", p)
	}

	peer := &v.local["alpha"].Serving[0].Peers[0]
	peer.Lag.PerMille, peer.Lag.Slowed = 640, true
	if a := v.volume(vol).Async; a.Writers != api.WritersSlowed || a.UsedPercent != 64 || !strings.Contains(a.Reason, "the line to it, or its disk, is slower than the writers") {
		t.Errorf("slowed: %+v", a)
	}
	peer.Connected, peer.Reason, peer.Lag.Held, peer.Lag.HeldMs = false, "i/o timeout", true, 4000
	if a := v.volume(vol).Async; a.Writers != api.WritersHeld || !strings.Contains(a.Reason, "it is not connected: i/o timeout; that has held writers for 4s, and after 10s it is dropped") {
		t.Errorf("held: %+v", a)
	}
}

// A figure that says "nothing would be lost" while nobody could follow would be a lie.
func TestStatusNamesNoLossWhereNobodyWouldFollow(t *testing.T) {
	v, vol := asyncView()
	delete(v.local, "beta")
	if a := v.volume(vol).Async; a == nil || a.LossBytes != nil {
		t.Errorf("the standby does not answer: %+v", a)
	}
	v, vol = asyncView()
	delete(vol.Members, "beta")
	v.local["alpha"].Serving[0].Peers[0].Lag = nil
	if a := v.volume(vol).Async; a == nil || a.LossBytes != nil || a.UsedPercent != 0 {
		t.Errorf("the standby was dropped: %+v", a)
	}
	for _, mode := range []string{cluster.ModeSync, cluster.ModeSemisync} {
		v, vol = asyncView()
		vol.Mode = mode
		if a := v.volume(vol).Async; a != nil {
			t.Errorf("%s: %+v", mode, a)
		}
	}
}

// While nobody serves, the bound is all that is known: what the primary acknowledged last it may have acknowledged unheard.
func TestPointInAsyncIsTheBoundWhileNobodyServes(t *testing.T) {
	v, vol := asyncView()
	delete(v.local, "alpha")
	if a := v.volume(vol).Async; a == nil || a.LossBytes != nil || a.MaxLagBytes != 2000 {
		t.Errorf("the configured bound is shown: %+v", a)
	}
	if p := v.point(vol, "beta"); p == nil || p.LossBytes != 2000 || p.At != nil {
		t.Errorf("%+v", p)
	}
	v.bounds = nil
	if p := v.point(vol, "beta"); p == nil || p.LossBytes != vol.Size {
		t.Errorf("without a known bound: %+v", p)
	}
	v.local["alpha"] = &control.LocalReply{Node: "alpha", Reports: []cluster.Report{{Volume: "db", Incarnation: vol.Members["alpha"].Incarnation, Process: 1, Epoch: 3, Held: true}}}
	if p := v.point(vol, "alpha"); p == nil || p.LossBytes != 0 {
		t.Errorf("who served has all: %+v", p)
	}
}

// Where the lost writes are, is said also while the node that has them is away.
func TestStatusSaysWhereLostWritesAreWhileTheirNodeIsAway(t *testing.T) {
	v, vol := asyncView()
	vol.Primary, vol.Served, vol.Epoch, vol.Held, vol.HeldSince = "beta", "beta", 4, []string{"alpha"}, 4
	delete(vol.Members, "alpha")
	delete(v.local, "alpha")
	if r := v.volume(vol).Replicas[0]; r.State != api.ReplicaOffline || !strings.Contains(r.Reason, "it may hold acknowledged writes that the others lack: when it is back, its resync keeps what it overwrites as a rescue image") {
		t.Errorf("%+v", r)
	}
}

// R6, R25: another process of a standby is no prefix of anything; a person is told so, and that the bound is no bound then.
func TestAsyncNewProcessOfAStandbyNeedsConsent(t *testing.T) {
	v, vol := asyncView()
	delete(v.local, "alpha")
	v.local["beta"].Reports[0].Process = 2
	err := mayFailover(v, vol, api.FailoverRequest{Volume: "db", To: "beta", Force: true})
	if err == nil || !strings.Contains(err.Error(), "at risk beyond the bound") || !strings.Contains(err.Error(), "--accept-data-loss") {
		t.Errorf("%v", err)
	}
	if p := v.volume(vol).Promotable; len(p) != 0 {
		t.Errorf("promotable %v", p)
	}
}

func TestRecordOfAFailoverIsShownInFull(t *testing.T) {
	f := failoverOf(cluster.Failover{Volume: "db", RPOBytes: 1000, RPOMillis: 5000, Lag: &cluster.Lag{Bytes: 10, Ms: 20, MaxBytes: 1000, MaxMs: 5000}, LagAgeMillis: 30})
	if f.RPOBytes != 1000 || f.RPOMs != 5000 || f.Lag == nil || *f.Lag != (api.FailoverLag{Bytes: 10, Ms: 20, AgeMs: 30}) {
		t.Errorf("%+v", f)
	}
}

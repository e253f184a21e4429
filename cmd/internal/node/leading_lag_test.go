package node

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/replication"
	"hacluster/replication/primary"
)

func TestLagIsTheWorstOfTheMembers(t *testing.T) {
	peer := func(bytes int64, age time.Duration, required bool) replication.PeerStatus {
		return replication.PeerStatus{Progress: primary.Progress{Async: required, LagBytes: bytes}, Lag: age}
	}
	s := replication.Serving{Peers: []replication.PeerStatus{peer(10, 3*time.Second, true), peer(20, time.Second, true), peer(99, time.Hour, false)}}
	bound := &cluster.Lag{MaxBytes: 64, MaxMs: 5000}
	if got := lag(s, bound); *got != (cluster.Lag{Bytes: 20, Ms: 3000, MaxBytes: 64, MaxMs: 5000}) {
		t.Errorf("%+v", got)
	}
	if *bound != (cluster.Lag{MaxBytes: 64, MaxMs: 5000}) {
		t.Errorf("the bound changed: %+v", bound)
	}
}

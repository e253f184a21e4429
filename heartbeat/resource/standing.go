package resource

import (
	"fmt"
	"time"

	"hacluster/heartbeat/cluster"
)

// Standing is what a node knows of its right to run a service (R31): it starts one only while it serves all of its volumes, and
// after every other node that may have run it said that it does not, or is off, or had its guard's time.
type Standing struct {
	// Serving: this node serves all volumes of the service, by a lease that is valid now, in the epochs Epochs, by the volumes' ids.
	Serving bool
	Epochs  map[string]cluster.Epoch
	// Learned is when this node first knew of the newest of these epochs: every promotion is decided before it is known.
	Learned Instant
	// Wait is how long after Learned what other nodes may have left running is surely stopped by their guards.
	Wait time.Duration
	// Others are the other nodes that may have run it, and whether each said that nothing runs there and that nothing will in an
	// epoch older than Epochs, or is confirmed off.
	Others map[string]bool
}

// MayStart reports whether nothing of the service can run elsewhere; if not, why.
func (s Standing) MayStart(now Instant, p Promise) (bool, string) {
	if !s.Serving {
		return false, "this node does not serve its volumes"
	}
	for v, e := range s.Epochs {
		if e < p[v] {
			return false, fmt.Sprintf("another node said that it leads the volume in epoch %d", p[v])
		}
	}
	left := s.Learned.Add(s.Wait).Sub(now)
	for node, stopped := range s.Others {
		if !stopped && left > 0 {
			return false, fmt.Sprintf("waiting until %s has stopped it, %v at most", node, left.Round(time.Millisecond))
		}
	}
	return true, ""
}

// Promise is, for each volume, the newest epoch that another node said it leads the volume in: in an older one nothing is started here.
// It need not outlive the process, for a new one is promoted anew before it serves.
type Promise map[string]cluster.Epoch

// Give notes what another node said. Given, the node answers whether the service has stopped here.
func (p Promise) Give(epochs map[string]cluster.Epoch) {
	for v, e := range epochs {
		p[v] = max(p[v], e)
	}
}

package node

import (
	"fmt"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// confirmed says why a person's word that a node is off is not taken; empty: it is. A lease that was granted may be in force until it has
// surely run out, and what an earlier leader granted is not known here.
func (l *leading) confirmed(now cluster.Instant, node string) string {
	lease := max(l.timers.Lease, config.LeaseFor(millis(l.n.state.get().LongestRTOMillis)))
	lease += lease / 50 // twice the allowance for clocks that run apart
	var left time.Duration
	why := ""
	switch heard, ok := l.heard[node]; {
	case node == l.n.me.Name:
		return fmt.Sprintf("%s leads the group, so it is not off: turn it off first; a wrong word here could have two nodes serve one volume (R10)", node)
	case ok:
		left, why = heard.Add(lease).Sub(now), fmt.Sprintf("%s, the leader, heard from %s %v ago, and a lease that it granted it may be in force", l.n.me.Name, node, now.Sub(heard).Round(time.Millisecond))
	default:
		left, why = l.began.Add(lease).Sub(now), fmt.Sprintf("%s leads since %v ago, and a lease that its predecessor granted %s may be in force", l.n.me.Name, now.Sub(l.began).Round(time.Millisecond), node)
	}
	if at := l.open[node]; at.Sub(now) > left {
		left = at.Sub(now)
	}
	if left <= 0 {
		return ""
	}
	return fmt.Sprintf("%s: look whether it is off, turn it off if not, and say so again in %v; a wrong word here could have two nodes serve one volume (R10)", why, (left + time.Second).Round(time.Second))
}

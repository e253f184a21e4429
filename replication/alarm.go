package replication

import (
	"fmt"

	"hacluster/blockdev"
)

// alarm tells an operator of what R1 rules out: two primaries, or two processes of one, in one epoch. Nothing is taken from
// the second; but somewhere there is an old copy of a node, or a fault of this program. It is told once in a while, for
// whoever speaks so may do it without end.
func (r *Replica) alarm(what string) {
	r.mu.Lock()
	count, _ := r.alarms.add(r.node.Now(), blockdev.Range{})
	r.mu.Unlock()
	if count == 0 {
		return
	}
	text := fmt.Sprintf("%s (%d times since the last such event): this must never be; look whether a copy of a node runs, and keep the logs of all nodes", what, count)
	r.log.Error("ALARM: two primaries in one epoch", "what", text)
	r.event("two primaries", text)
}

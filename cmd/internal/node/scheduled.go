package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/schedule"
)

// scheduleLook is how often schedules are looked at, and so by how much at most a verify begins after its minute has.
const scheduleLook = 5 * time.Second

// followSchedules begins the verifies that schedules ask for, until ctx ends. Every node looks; the primary of a volume
// begins. Who becomes primary later in the same minute has looked at it already and begins none.
func (n *Node) followSchedules(ctx context.Context) error {
	tick := time.NewTicker(scheduleLook)
	defer tick.Stop()
	var last time.Time
	for {
		last = n.lookAtSchedules(ctx, last, wallClock())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lookAtSchedules begins what is due at now; it gives what the next look is to be told as last.
func (n *Node) lookAtSchedules(ctx context.Context, last, now time.Time) (next time.Time) {
	for _, v := range n.conf().Mirrors() {
		if v.Verify.Schedule.Due(last, now) {
			n.verifyScheduled(ctx, v.Name, v.Verify)
		}
	}
	return schedule.Look(last, now)
}

// verifyScheduled asks this node for a verify, as the command would, if it is the primary. One that cannot begin is told
// of and not tried again: the next moment of the schedule is.
func (n *Node) verifyScheduled(ctx context.Context, volume string, v config.Verify) {
	rep := n.vols.replica(volume)
	if rep == nil {
		return
	}
	t := rep.Tenure()
	if t == nil {
		return // the primary is another, or there is none
	}
	by := fmt.Sprintf("the schedule %q", string(v.Schedule))
	if _, err := n.Verify(ctx, &control.Verify{Volume: volume, Epoch: t.Epoch(), Repair: v.Repair, By: by}); err != nil {
		why := status.Convert(err).Message()
		n.log.Warn("a scheduled verify did not begin", "volume", volume, "schedule", string(v.Schedule), "why", why)
		n.events.add("verify refused", volume, by+" asked for one: "+why)
	}
}

// verifyNext is when the schedule of a volume, as this node knows it, comes next; nil: it has none.
func (n *Node) verifyNext(volume string) *time.Time {
	v, ok := n.conf().Mirror(volume)
	if !ok {
		return nil
	}
	next, ok := v.Verify.Schedule.Next(wallClock())
	if !ok {
		return nil
	}
	return &next
}

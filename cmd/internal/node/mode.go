package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// How a volume's mode changes: the applied configuration notes it in the volume's record, and the primary, whoever that is, puts it in
// force when every member has all that was acknowledged (replication/DESIGN.md). The role stays where it is, and no client is cut
// off. What counts of the mode is the record's: the configuration says what is wanted.

// modes are those that the configuration has and the volumes neither have nor are to get.
func modes(st *cluster.State, next *config.Config) (all []cluster.ChangeMode) {
	for _, vol := range next.Mirrors() {
		v, ok := st.Volumes[vol.Name]
		own := vol.OwnModes()
		for _, r := range v.Replicas { // one that leaves keeps its mode as long as it is there
			if _, stays := vol.Replica(r.Node); ok && !stays && v.ModeToBeOf(r.Node) != string(vol.Mode) {
				if own == nil {
					own = map[string]string{}
				}
				own[r.Node] = v.ModeToBeOf(r.Node)
			}
		}
		if ok && !v.WillHave(string(vol.Mode), own) {
			all = append(all, cluster.ChangeMode{Name: v.Name, ID: v.ID, Epoch: v.Epoch, Version: v.Version, Mode: string(vol.Mode), Replicas: own})
		}
	}
	return all
}

// modePatience is how much of the time that who asked has left is kept for the answer.
const modePatience = 500 * time.Millisecond

// awaitModes returns when every mode of the change is in force, or taken back by another one; at the end of the time it says of each
// that is not what it waits for.
func (n *Node) awaitModes(ctx context.Context, c *cluster.Configure) error {
	if len(c.Modes) == 0 {
		return nil
	}
	until := time.Now().Add(2 * n.conf().Timers.RTO)
	if d, ok := ctx.Deadline(); ok && d.Add(-modePatience).Before(until) {
		until = d.Add(-modePatience)
	}
	for {
		waiting := modesWait(n.state.get(), c.Modes)
		if len(waiting) == 0 {
			return nil
		}
		if time.Now().After(until) {
			return modesLate(n.look(ctx), waiting, len(c.Modes))
		}
		select {
		case <-ctx.Done():
			return api.Unavailable("the change is applied, and not every mode is in force yet: `ha-admin status` shows what they wait for")
		case <-time.After(configuredPause):
		}
	}
}

// modesWait are the changes that are not in force.
func modesWait(st *cluster.State, all []cluster.ChangeMode) (waiting []cluster.ChangeMode) {
	for _, m := range all {
		if v, ok := st.Volumes[m.Name]; ok && v.ID == m.ID && v.NextMode != "" && v.WillHave(m.Mode, m.Replicas) {
			waiting = append(waiting, m)
		}
	}
	return waiting
}

func modesLate(v view, waiting []cluster.ChangeMode, of int) error {
	var whys []string
	for _, m := range waiting {
		vol := v.state.Volumes[m.Name]
		whys = append(whys, fmt.Sprintf("%s is in mode %s and waits for this to be in %s: %s", m.Name, vol.ModesText(), vol.ModesToBeText(), modeWaitsFor(&vol, v.serving(&vol))))
	}
	return api.Failed("the change is applied, and %d of %d modes are not in force yet; nothing more is to be done than what they wait for, `ha-admin status` shows it: %s",
		len(waiting), of, strings.Join(whys, "; "))
}

// modeWaitsFor says why a volume that is to have another mode has its old one still; s is what its primary says.
func modeWaitsFor(vol *cluster.Volume, s *control.Serving) string {
	switch {
	case vol.Primary == "":
		return "a primary: none was promoted yet"
	case s == nil:
		return fmt.Sprintf("its primary %s does not serve, or does not answer: whoever is primary next goes on with it", vol.Primary)
	case s.ModeWaits == "":
		return "its primary is about to learn of it"
	}
	return s.ModeWaits
}

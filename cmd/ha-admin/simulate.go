package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) simulateCommand() *cobra.Command {
	return group("simulate", "tell what would happen now, without doing it",
		command("node-loss NODE", "tell what the loss of a node at this moment would mean for each volume and service", one, func(ctx context.Context, args []string) error {
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
				st, _, err := c.Status(ctx, "")
				if err != nil {
					return err
				}
				past, err := c.Failovers(ctx)
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(st.Nodes, func(n api.NodeStatus) bool { return n.Name == args[0] }) {
					return api.Failed("there is no node %q: `ha-admin node list` shows those that there are", args[0])
				}
				s := simulateLoss(st, past, args[0])
				if a.output == "json" {
					return a.printJSON(s)
				}
				return a.print(lossTable(s))
			})
		}))
}

// nodeLoss is what the loss of a node would mean.
type nodeLoss struct {
	Node string `json:"node"`
	// Quorum: a majority of the voters would be left.
	Quorum   bool          `json:"quorum"`
	Volumes  []volumeLoss  `json:"volumes"`
	Services []serviceLoss `json:"services"`
}

// What becomes of a volume.
const (
	lossMoves       = "moves"       // another node serves it
	lossGoesOn      = "goes on"     // its primary serves it with a replica less
	lossUntouched   = "untouched"   // it has no replica there
	lossSuspended   = "suspended"   // served by nobody until a majority is back
	lossUnavailable = "unavailable" // served by nobody until a person decides, or the node is back
)

type volumeLoss struct {
	Volume  string   `json:"volume"`
	Outcome string   `json:"outcome"`
	To      []string `json:"to"` // one of these would serve it
	Why     string   `json:"why"`
	// LossBytes is what of the acknowledged would be lost at this moment, at most. Null: that is not known.
	LossBytes *int64 `json:"loss_bytes"`
	// Of past failovers for a lost primary: how many, their median and their longest, of this volume or, if it had none, of all.
	Past        int   `json:"past"`
	RTOMsP50    int64 `json:"rto_ms_p50"`
	RTOMsMax    int64 `json:"rto_ms_max"`
	RTOTargetMs int64 `json:"rto_target_ms"`
}

type serviceLoss struct {
	Service string `json:"service"`
	Outcome string `json:"outcome"`
}

// simulateLoss is made of what the cluster says now, and of what was measured before.
func simulateLoss(st *api.Status, past []api.Failover, node string) nodeLoss {
	out := nodeLoss{Node: node, Volumes: []volumeLoss{}, Services: []serviceLoss{}}
	voters, left := 0, 0
	for _, n := range st.Nodes {
		if n.Voter {
			voters++
			if n.Name != node && n.State == "alive" {
				left++
			}
		}
	}
	out.Quorum = left > voters/2
	for _, v := range st.Volumes {
		l := lossOf(v, node, out.Quorum)
		if l.Outcome == lossMoves {
			l.Why = fencedFirst(st, node)
		}
		l.measured(past)
		out.Volumes = append(out.Volumes, l)
	}
	for _, s := range st.Services {
		l := serviceLoss{Service: s.Name, Outcome: lossUntouched}
		if s.Node == node {
			l.Outcome = "follows its volumes"
		}
		out.Services = append(out.Services, l)
	}
	return out
}

func lossOf(v api.VolumeStatus, node string, quorum bool) volumeLoss {
	l := volumeLoss{Volume: v.Name, Outcome: lossUntouched, To: []string{}, LossBytes: new(int64)}
	holds := slices.ContainsFunc(v.Replicas, func(r api.ReplicaStatus) bool { return r.Node == node })
	switch {
	case v.State == api.VolumeUnavailable:
		l.Outcome, l.Why = lossUnavailable, "it is so now: "+v.Reason
	case !quorum:
		l.Outcome, l.Why = lossSuspended, "no majority of the voters would be left"
	case v.Primary == node:
		l.follow(v, node)
	case holds:
		l.Outcome, l.Why = lossGoesOn, fmt.Sprintf("%s serves it, in sync would be %s", v.Primary, strings.Join(without(v.InSync, node), ", "))
	}
	return l
}

// fencedFirst says what would have to be done before another serves; empty: nothing.
func fencedFirst(st *api.Status, node string) string {
	if st.Fencing == "" {
		return ""
	}
	for _, n := range st.Nodes {
		if n.Name == node && n.Fence != nil && len(n.Fence.Devices) > 0 {
			return "when " + node + " is fenced: how long its agents take comes on top; `ha-admin fence test " + node + "` asks them"
		}
	}
	return "when a person says that " + node + " is off, with `ha-admin fence confirm " + node + "`: it has no fence agent"
}

// follow finds who would serve a volume in the place of its primary.
func (l *volumeLoss) follow(v api.VolumeStatus, node string) {
	var asks []string
	for _, r := range v.Replicas {
		switch {
		case r.Node == node || !slices.Contains(v.Promotable, r.Node):
		case r.ByHand != "":
			asks = append(asks, fmt.Sprintf("%s %s", r.Node, r.ByHand))
		default:
			l.To = append(l.To, r.Node)
		}
	}
	switch {
	case len(l.To) > 0:
		l.Outcome = lossMoves
		if v.Async != nil {
			l.LossBytes = v.Async.LossBytes
		}
	case len(asks) > 0:
		l.Outcome, l.Why = lossUnavailable, "only a person would move it: "+strings.Join(asks, ", ")
	default:
		l.Outcome, l.Why = lossUnavailable, "no other replica is in sync and answers: in sync are "+strings.Join(v.InSync, ", ")
	}
}

// measured takes the figures of past failovers.
func (l *volumeLoss) measured(past []api.Failover) {
	took := func(volume string) (ms []int64) {
		for _, f := range past {
			if f.Reason == "lease expired" && (volume == "" || f.Volume == volume) {
				ms = append(ms, f.RTOMs)
			}
			l.RTOTargetMs = f.RTOTargetMs
		}
		return ms
	}
	ms := took(l.Volume)
	if len(ms) == 0 {
		ms = took("")
	}
	if l.Past = len(ms); l.Past > 0 {
		slices.Sort(ms)
		l.RTOMsP50, l.RTOMsMax = ms[(len(ms)-1)/2], ms[len(ms)-1]
	}
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

func lossTable(s nodeLoss) string {
	var out strings.Builder
	fmt.Fprintf(&out, "if %s were lost now: quorum %s\n\n", oneLine(s.Node), yesNo(s.Quorum))
	t := newTable("VOLUME", "OUTCOME", "TO", "LOSS", "PAST RTO", "WHY")
	for _, v := range s.Volumes {
		loss, rto := "unknown", ""
		switch {
		case v.Outcome != lossMoves:
			loss = ""
		case v.LossBytes != nil:
			loss = sizeText(*v.LossBytes)
		}
		if v.Outcome == lossMoves {
			rto = "never measured"
			if v.Past > 0 {
				rto = fmt.Sprintf("%d ms, at most %d ms (of %d; target %d ms)", v.RTOMsP50, v.RTOMsMax, v.Past, v.RTOTargetMs)
			}
		}
		t.row(v.Volume, v.Outcome, strings.Join(v.To, " or "), loss, rto, v.Why)
	}
	out.WriteString(t.String())
	if len(s.Services) > 0 {
		t := newTable("SERVICE", "OUTCOME")
		for _, v := range s.Services {
			t.row(v.Service, v.Outcome)
		}
		out.WriteString("\n" + t.String())
	}
	return out.String()
}

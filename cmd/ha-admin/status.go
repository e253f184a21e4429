package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	var every time.Duration
	c := command("status [VOLUME]", "tell how the cluster and its volumes are", atMostOne, func(ctx context.Context, args []string) error {
		volume := strings.Join(args, "")
		if watch {
			return a.watchStatus(ctx, volume, every)
		}
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error { return a.status(ctx, c, volume) })
	})
	c.Flags().BoolVar(&watch, "watch", false, "look again and again, until interrupted; when a node goes away, the next of --server is asked")
	c.Flags().DurationVar(&every, "interval", defaultInterval, "with --watch: how often")
	return c
}

func (a *app) status(ctx context.Context, c *api.Client, volume string) error {
	st, doc, err := c.Status(ctx, volume)
	if err != nil {
		return err
	}
	if a.output == "json" {
		return a.printDocument(doc)
	}
	return a.print(statusTable(st))
}

// statusTable shows the document to a person.
func statusTable(st *api.Status) string {
	var out strings.Builder
	leader := st.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(&out, "cluster %s: quorum %s, leader %s\n", oneLine(st.Cluster), yesNo(st.Quorum), oneLine(leader))
	if !st.Quorum {
		out.WriteString("without quorum this is what the node knows by itself; nothing can be changed\n")
	}
	if st.Maintenance {
		out.WriteString("maintenance is on: no volume goes to another node by itself until `ha-admin maintenance off`\n")
	}
	nodes := newTable("NODE", "ROLE", "STATE", "VOTER", "LEASE", "LINKS", "CONFIG")
	for _, n := range st.Nodes {
		nodes.row(n.Name, n.Role, stateText(n), yesNo(n.Voter), leaseText(n.LeaseMs), linksText(n.Links), configText(n.ConfigDiffers))
	}
	out.WriteString("\n" + nodes.String())
	out.WriteString(fencingText(st))
	for _, v := range st.Volumes {
		out.WriteString("\n" + volumeText(v))
	}
	if len(st.Services) > 0 {
		services := newTable("SERVICE", "NODE", "STATE", "REASON")
		for _, s := range st.Services {
			services.row(s.Name, s.Node, s.State, oneLine(s.Reason))
		}
		out.WriteString("\n" + services.String())
	}
	if f := st.LastFailover; f != nil {
		out.WriteString("\nlast failover: " + failoverText(*f) + "\n")
	}
	return out.String()
}

func stateText(n api.NodeStatus) string {
	if n.Drained {
		return n.State + ", drained"
	}
	return n.State
}

func leaseText(ms int64) string {
	if ms <= 0 {
		return "-"
	}
	return fmt.Sprintf("%dms", ms)
}

func linksText(links []api.LinkStatus) string {
	var texts []string
	for _, l := range links {
		texts = append(texts, l.Address+" "+l.State)
	}
	return strings.Join(texts, ", ")
}

func configText(differs bool) string {
	if differs {
		return "differs"
	}
	return "same"
}

func volumeText(v api.VolumeStatus) string {
	var out strings.Builder
	primary := v.Primary
	if primary == "" {
		primary = "none"
	}
	head := fmt.Sprintf("volume %s: %s, %s, %s, primary %s, epoch %d", v.Name, v.State, sizeText(v.Size), v.Mode, primary, v.Epoch)
	out.WriteString(oneLine(head) + "\n")
	if v.Group != "" {
		fmt.Fprintf(&out, "  group: %s, whose volumes have one primary and one order of writes; what follows is the group's\n", oneLine(v.Group))
	}
	if v.Reason != "" {
		fmt.Fprintf(&out, "  why: %s\n", oneLine(v.Reason))
	}
	if v.NextSize > 0 {
		verb := "grows"
		if v.NextSize < v.Size {
			verb = "shrinks"
		}
		fmt.Fprintf(&out, "  %s to %s: waits for %s\n", verb, sizeText(v.NextSize), oneLine(v.NextSizeWaitsFor))
	}
	if v.NextMode != "" {
		fmt.Fprintf(&out, "  mode %s is to become %s, both count until then; it waits: %s\n", oneLine(v.Mode), oneLine(v.NextMode), oneLine(v.NextModeWaitsFor))
	}
	fmt.Fprintf(&out, "  promotable: %s\n", listText(v.Promotable))
	if v.Mode == "semisync" {
		out.WriteString("  semisync: " + semisyncText + "\n")
	}
	if v.Async != nil {
		out.WriteString(asyncText(v))
	}
	if v.Device != "" {
		fmt.Fprintf(&out, "  device: %s\n", oneLine(v.Device))
	} else if v.DeviceReason != "" {
		fmt.Fprintf(&out, "  device: none: %s\n", oneLine(v.DeviceReason))
	}
	reps := newTable("  REPLICA", "ROLE", "MODE", "STATE", "LAG", "DIRTY", "RESYNC")
	for _, r := range v.Replicas {
		reps.row("  "+r.Node, r.Role, r.Mode, r.State, sizeText(r.LagBytes), sizeText(r.DirtyBytes), resyncText(r.Resync))
	}
	out.WriteString(reps.String())
	for _, r := range v.Replicas {
		if r.Reason != "" {
			fmt.Fprintf(&out, "  %s: %s\n", oneLine(r.Node), oneLine(r.Reason))
		}
		if r.SettlingBytes > 0 {
			fmt.Fprintf(&out, "  %s: %s are compared with the primary, for what was in flight when the last one ended may be on one replica only; a read of that waits\n", oneLine(r.Node), sizeText(r.SettlingBytes))
		}
		if r.ReadOps > 0 {
			fmt.Fprintf(&out, "  %s: answered %d of the %d reads, %s of %s\n", oneLine(r.Node), r.ReadOps, v.IO.ReadOps, sizeText(int64(r.ReadBytes)), sizeText(int64(v.IO.ReadBytes)))
		}
		if p := r.Point; p != nil && r.State != api.ReplicaInSync {
			fmt.Fprintf(&out, "  %s: %s\n", oneLine(r.Node), pointText(p))
		}
		if r.ByHand != "" {
			fmt.Fprintf(&out, "  %s: %s: promoted only by `ha-admin failover %s --to %s`\n", oneLine(r.Node), oneLine(r.ByHand), oneLine(v.Name), oneLine(r.Node))
		}
		if r.Via != "" {
			fmt.Fprintf(&out, "  %s: fed via %s\n", oneLine(r.Node), oneLine(r.Via))
		}
		if l := r.Line; l != nil {
			fmt.Fprintf(&out, "  %s: %s\n", oneLine(r.Node), lineText(l))
		}
		if k := r.Rescue; k != nil {
			fmt.Fprintf(&out, "  %s: %s\n", oneLine(r.Node), rescueText(v.Name, k))
		}
	}
	if v.Verify != nil {
		fmt.Fprintf(&out, "  verify: %s\n", oneLine(verifyText(v.Verify)))
	}
	if v.VerifyNext != nil {
		fmt.Fprintf(&out, "  next verify: %s\n", v.VerifyNext.UTC().Format(time.RFC3339))
	}
	return out.String()
}

// semisyncText is what the mode protects, and what not.
const semisyncText = "one lost node loses no write, and flushed writes are on both disks; what counts as LAG is not on that standby's disk yet, " +
	"and at risk if the primary's machine is lost for good and the standby's process ends before it is"

func listText(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return oneLine(strings.Join(names, ", "))
}

// lineText says how block data gets to a replica's node.
func lineText(l *api.LineStatus) string {
	limit := "no limit now"
	if l.RateBytesPerSec > 0 {
		limit = fmt.Sprintf("at most %.4gMbit/s", float64(l.RateBytesPerSec)*8/1e6)
	}
	sent := sizeText(int64(l.SentBytes)) + " sent"
	if l.SentBytes < l.PlainBytes {
		sent = fmt.Sprintf("%s sent as %s", sizeText(int64(l.PlainBytes)), sizeText(int64(l.SentBytes)))
	}
	return fmt.Sprintf("line to it: %s; %s, for all volumes since the primary's process started", limit, sent)
}

// pointText says what a forced promotion would give.
func pointText(p *api.PointStatus) string {
	since := "a time that is not known"
	if p.At != nil {
		since = p.At.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("by force: the state of epoch %d; up to %s may be old, since %s", p.Epoch, sizeText(p.LossBytes), since)
}

func resyncText(r *api.ResyncStatus) string {
	if r == nil {
		return ""
	}
	text := fmt.Sprintf("%s of %s from %s, %s/s", sizeText(r.DoneBytes), sizeText(r.TotalBytes), r.Source, sizeText(r.RateBytesPerSec))
	if r.ETASeconds != nil {
		text += ", " + (time.Duration(*r.ETASeconds) * time.Second).String() + " left"
	}
	return text
}

package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hacluster/blockdev/failpoint"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// Apply implements api.Configurer.
func (n *Node) Apply(ctx context.Context, r api.ApplyRequest) (api.Applied, error) {
	return onLeader(ctx, n, func(*leading) (api.Applied, error) { return n.apply(ctx, r) },
		func(ctx context.Context, c *api.Client) (api.Applied, error) { return c.Apply(ctx, r) })
}

func (n *Node) apply(ctx context.Context, r api.ApplyRequest) (out api.Applied, err error) {
	v := n.look(ctx)
	if !v.quorum {
		return out, api.Unavailable("%v", errNoLeader)
	}
	next, steps, err := n.plan(v.state, r)
	if err != nil {
		return out, err
	}
	if r.DeleteData {
		steps = append(steps, v.deletedImages(next)...)
	}
	out = api.Applied{Version: v.state.ConfigVersion, Steps: steps}
	if r.OnVersion != 0 && r.OnVersion != out.Version {
		return out, api.Failed("the plan was made on version %d of the configuration, the cluster has version %d by now: look at a new plan", r.OnVersion, out.Version)
	}
	if r.PlanOnly {
		return out, nil
	}
	if no := config.Refused(steps); len(no) > 0 {
		return out, api.Refused("nothing is applied: %s", refusals(r.Name, no))
	}
	if len(steps) == 0 {
		return out, nil
	}
	c, err := n.configuration(&v, next, r)
	if err != nil {
		return out, err
	}
	if err := n.mayResize(ctx, &v, c, r); err != nil {
		return out, err
	}
	if err := v.mayChangeReplicas(c.Replicas); err != nil {
		return out, err
	}
	if moved, err := n.handOverLeaving(ctx, &v, c); err != nil {
		return out, err
	} else if moved {
		v = n.look(ctx)
		if c, err = n.configuration(&v, next, r); err != nil {
			return out, err
		}
	}
	if err := n.mustConfigure(ctx, c); err != nil {
		return out, err
	}
	if len(c.Resize) > 0 {
		failpoint.Hit(failpoint.ResizeCommitted)
	}
	out.Applied, out.NewVersion = true, c.Version+1
	out.WaitingFor = n.awaitConfigured(ctx, c)
	if err := n.takeForce(ctx, v.state, c); err != nil {
		return out, err
	}
	if err := n.awaitModes(ctx, c); err != nil {
		return out, err
	}
	return out, n.awaitReplicas(ctx, c)
}

// plan compares what is applied with what the file says. What the daemon cannot do yet is refused like what it cannot
// change.
func (n *Node) plan(st *cluster.State, r api.ApplyRequest) (next *config.Config, steps []config.Step, err error) {
	if len(st.Config) == 0 {
		return nil, nil, api.Failed("this cluster was founded by a version that did not keep its configuration: it cannot be changed while it runs")
	}
	old, err := readApplied(n.cfg, st.Config)
	if err != nil {
		return nil, nil, api.Failed("the applied configuration: %v", err)
	}
	next, unsupported, err := n.cfg.With(r.Name, r.File)
	if err != nil {
		return nil, nil, api.Failed("%s is wrong, nothing is applied: %s", filepath.Base(r.Name), strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	for _, p := range unsupported {
		steps = append(steps, config.Step{Kind: config.StepRefused, What: p.Text, Text: p.What + ", " + p.Want, Line: p.Line})
	}
	for _, p := range next.MissingAgents() {
		steps = append(steps, config.Step{Kind: config.StepRefused, What: p.Text, Text: p.What + ", " + p.Want, Line: p.Line})
	}
	steps = append(steps, old.Plan(next)...)
	return next, append(steps, overtaken(st, old, next)...), nil
}

func refusals(file string, no []config.Step) string {
	var texts []string
	for _, s := range no {
		texts = append(texts, fmt.Sprintf("%s:%d: %s: %s", filepath.Base(file), s.Line, s.What, s.Text))
	}
	return strings.Join(texts, "; ")
}

// configuration is the command that carries a plan out.
func (n *Node) configuration(v *view, next *config.Config, r api.ApplyRequest) (*cluster.Configure, error) {
	text, err := next.Pack()
	if err != nil {
		return nil, api.Failed("%v", err)
	}
	c := &cluster.Configure{Version: v.state.ConfigVersion, Hash: next.Hash(), Config: text, RTOMillis: next.Cluster.RTO.Milliseconds(), Fencing: string(next.Cluster.Fencing)}
	for _, vol := range next.Mirrors() {
		if _, ok := v.state.Volumes[vol.Name]; !ok {
			c.Create = append(c.Create, createVolume(vol))
		}
	}
	c.Resize, c.Modes, c.Replicas = resizes(v.state, next), modes(v.state, next), replicaChanges(v.state, next)
	for _, name := range sortedKeys(v.state.Volumes) {
		if _, ok := next.Mirror(name); ok {
			continue
		}
		vol := v.state.Volumes[name]
		if err := mayRemoveVolume(v, &vol, r); err != nil {
			return nil, err
		}
		c.Remove = append(c.Remove, cluster.RemoveVolume{Name: name, ID: vol.ID, DeleteData: r.DeleteData})
	}
	return c, nil
}

func createVolume(v config.Mirror) cluster.CreateVolume {
	c := cluster.CreateVolume{Name: v.Name, ID: newID(), Size: v.Size, Mode: string(v.Mode)}
	devices := map[string][]string{}
	for _, p := range v.Parts {
		part := cluster.Part{Name: p.Name, Size: p.Size, Devices: map[string]string{}}
		for _, r := range p.Replicas {
			part.Devices[r.Node] = r.Device
			devices[r.Node] = append(devices[r.Node], r.Device)
		}
		c.Parts = append(c.Parts, part)
	}
	for _, r := range v.Replicas {
		if len(v.Parts) > 0 {
			r.Device = strings.Join(devices[r.Node], " + ")
		}
		c.Replicas = append(c.Replicas, cluster.Replica{Node: r.Node, Device: r.Device, Mode: v.OwnModes()[r.Node]})
	}
	return c
}

// mayRemoveVolume refuses to cut clients off that nobody has spoken of.
func mayRemoveVolume(v *view, vol *cluster.Volume, r api.ApplyRequest) error {
	if r.DisconnectClients || vol.Primary == "" {
		return nil
	}
	if v.local[vol.Primary] == nil {
		return api.Refused("volume %q is to be removed and its primary %s does not answer: whether clients use it is unknown: consent with --disconnect-clients", vol.Name, vol.Primary)
	}
	if s := v.serving(vol); s != nil && s.Clients > 0 {
		return api.Refused("volume %q is to be removed and %d clients are connected to it: disconnect them, or consent with --disconnect-clients", vol.Name, s.Clients)
	}
	return nil
}

// mustConfigure proposes the change until its outcome is known. A repetition that finds the version moved by its own
// earlier try has succeeded (R27).
func (n *Node) mustConfigure(ctx context.Context, c *cluster.Configure) error {
	res, err := n.mustApply(ctx, cluster.Command{Configure: c})
	if err != nil {
		return api.Unavailable("the change was not confirmed: %v: see config_version in `ha-admin status`", err)
	}
	st := n.state.get()
	if res.Void != "" && !(st.ConfigVersion == c.Version+1 && st.ConfigHash == c.Hash) {
		return api.Failed("nothing is applied: %s: another change came between, look at a new plan", res.Void)
	}
	return nil
}

// configuredPause is between two looks at who runs with a new configuration.
const configuredPause = 50 * time.Millisecond

// awaitConfigured returns when every node that answers runs with the change and has closed what it removes; at the end of
// the time it names those that have not. Who does not answer is not waited for.
func (n *Node) awaitConfigured(ctx context.Context, c *cluster.Configure) (waiting []string) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.conf().Timers.RTO)
	defer cancel()
	for {
		v := n.look(ctx)
		waiting = waiting[:0]
		answering := 0
		for _, node := range n.cfg.Nodes {
			l := v.local[node.Name]
			switch {
			case l == nil:
				waiting = append(waiting, node.Name)
			case l.ConfigVersion <= c.Version || slices.ContainsFunc(l.Reports, func(r cluster.Report) bool { return removes(c, r.Volume) }):
				waiting = append(waiting, node.Name)
				answering++
			}
		}
		if answering == 0 {
			return waiting
		}
		select {
		case <-ctx.Done():
			return waiting
		case <-time.After(configuredPause):
		}
	}
}

func removes(c *cluster.Configure, volume string) bool {
	return slices.ContainsFunc(c.Remove, func(r cluster.RemoveVolume) bool { return r.Name == volume })
}

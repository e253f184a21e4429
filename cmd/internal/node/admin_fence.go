package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/metrics"
	"hacluster/heartbeat"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/fence"
	"hacluster/heartbeat/fence/agent"
)

// personOf is who asks: the caller, or who asked the node that passes it on.
func personOf(ctx context.Context, told string) string {
	who := caller.Of(ctx)
	if name, anybody := who.Node(); told != "" && (name != "" || anybody) {
		return told
	}
	return who.String()
}

// Fence implements api.Fencer.
func (n *Node) Fence(ctx context.Context, name, person string) (api.FenceRecord, error) {
	if _, ok := n.cfg.Node(name); !ok {
		return api.FenceRecord{}, api.Failed("there is no node %q: `ha-admin node list` shows those that there are", name)
	}
	person = personOf(ctx, person)
	return onLeader(ctx, n, func(l *leading) (api.FenceRecord, error) { return n.fenceNow(ctx, l, name, person) },
		func(ctx context.Context, c *api.Client) (api.FenceRecord, error) { return c.Fence(ctx, name, person) })
}

func (n *Node) fenceNow(ctx context.Context, l *leading, name, person string) (out api.FenceRecord, err error) {
	v := n.look(ctx)
	rec, ok := v.state.Nodes[name]
	switch {
	case !v.quorum:
		return out, api.Unavailable("%v", errNoLeader)
	case !ok:
		return out, api.Failed("node %q is not part of the cluster", name)
	case len(n.conf().FencesOf(name)) == 0:
		return out, api.Failed("no fence agent is configured for %s: add a fence block with `ha-admin apply`, or turn it off by hand and say so with `ha-admin fence confirm %s`", name, name)
	case name == n.me.Name:
		return out, n.passOn(ctx, l, name)
	}
	before := uint64(0)
	if rec.Fence != nil {
		before = rec.Fence.Attempt
	}
	begun := make(chan *fencer, 1)
	err = l.do(ctx, func(cluster.Instant) {
		f := l.fences.running[name]
		if f == nil {
			f = &fencer{node: name, start: l.n.state.get().Nodes[name].Start, tries: 1, why: "asked for by " + person, person: person}
			l.beginFence(f)
		}
		begun <- f
	})
	if err != nil {
		return out, api.Unavailable("the leader changed: %v: run the command again", err)
	}
	select {
	case f := <-begun:
		return n.awaitFence(ctx, f, before)
	case <-l.ctx.Done():
	case <-ctx.Done():
	}
	return out, api.Unavailable("the leader changed: run the command again")
}

// passOn gives leadership away, for nobody turns itself off.
func (n *Node) passOn(ctx context.Context, l *leading, name string) error {
	st := n.state.get()
	others := n.others("")
	leads := func(node string) bool {
		for _, v := range st.Volumes {
			if v.Primary == node {
				return true
			}
		}
		return false
	}
	slices.SortStableFunc(others, func(a, b string) int { // a primary would pass it on again
		switch {
		case leads(a) == leads(b):
			return 0
		case leads(b):
			return -1
		}
		return 1
	})
	for _, o := range others {
		if l.raft.TransferLeadership(ctx, n.state.get().Nodes[o].RaftID) == nil {
			return api.Unavailable("%s led the group and has passed that on: run the command again", name)
		}
	}
	return api.Unavailable("%s leads the group, nobody could take over, and it does not turn itself off", name)
}

// awaitFence returns when the outcome of a try is known that is newer than before.
func (n *Node) awaitFence(ctx context.Context, f *fencer, before uint64) (out api.FenceRecord, err error) {
	over := false
	for {
		st, changed := n.state.watch()
		rec := st.Nodes[f.node]
		if r := rec.Fence; r != nil && r.Attempt > before && r.Word != cluster.FenceBegun {
			out = fenceRecord(&rec)
			if r.Word == cluster.FenceOff || r.Word == cluster.FenceConfirmed {
				return out, nil
			}
			return out, api.Failed("%s was not turned off (%s): %s", f.node, r.Word, orSaid(r.Text))
		}
		if over {
			return out, api.Unavailable("the fencing of %s did not come to an end: the leader changed, or the node is another process by now: see `ha-admin status`, and run the command again", f.node)
		}
		select {
		case <-changed:
		case <-f.done:
			over = true
		case <-f.l.ctx.Done():
			over = true
		case <-ctx.Done():
			return out, api.Unavailable("%s is not off yet; it goes on: see `ha-admin status` and `ha-admin events`, or wait longer with --timeout", f.node)
		}
	}
}

func orSaid(text string) string {
	if text == "" {
		return "nothing more is known"
	}
	return text
}

// FenceConfirm implements api.Fencer. What this node sees is one view; the leader, which may be granting leases to a node that does not
// answer here, has its say when the word gets there (leading.confirmed).
func (n *Node) FenceConfirm(ctx context.Context, name string) error {
	v := n.look(ctx)
	rec, ok := v.state.Nodes[name]
	switch {
	case !v.quorum:
		return api.Unavailable("%v", errNoLeader)
	case !ok:
		return api.Failed("node %q is not part of the cluster: `ha-admin node list` shows who is", name)
	case v.local[name] != nil:
		return api.Refused("%s answers, so it is not off: turn it off first; a wrong word here could have two nodes serve one volume (R10)", name)
	}
	for _, p := range n.gossipView() {
		if p.Name == name && p.State == heartbeat.Alive {
			return api.Refused("the heartbeat links of %s answer, so it is not off: turn it off first, and say so some seconds later; a wrong word here could have two nodes serve one volume (R10)", name)
		}
	}
	c := cluster.FenceNode{Node: name, Word: cluster.FenceConfirmed, Start: rec.Start, Attempt: 1, Person: personOf(ctx, "")}
	if rec.Fence != nil {
		c.Attempt = rec.Fence.Attempt + 1
	}
	res, err := n.mustApply(ctx, cluster.Command{FenceNode: &c})
	if err != nil {
		return api.Unavailable("the word was not confirmed to be kept: %v: see `ha-admin status`", err)
	}
	if res.Void != "" && res.Index == 0 { // by the leader, before it got into the log
		return api.Refused("%s", res.Void)
	}
	if f := n.state.get().Nodes[name].Fence; res.Void != "" && (f == nil || f.Word != cluster.FenceConfirmed || f.Start != c.Start) {
		return api.Failed("not done: %s: run the command again", res.Void)
	}
	return nil
}

// FenceTest implements api.Fencer. All agents are asked beside each other.
func (n *Node) FenceTest(ctx context.Context, name string) (out api.FenceTested, err error) {
	if _, ok := n.cfg.Node(name); !ok {
		return out, api.Failed("there is no node %q: `ha-admin node list` shows those that there are", name)
	}
	all := n.conf().FencesOf(name)
	if len(all) == 0 || len(n.env.Fence) == 0 {
		return out, api.Failed("no fence agent is configured for %s: add a fence block with `ha-admin apply`", name)
	}
	if err := n.mayTest(ctx, name); err != nil {
		return out, err
	}
	if !n.tests.begin(name) {
		return out, api.Refused("the agents of %s are being tested already, from %s: wait until that is over", name, n.me.Name)
	}
	defer n.tests.end(name)
	out = api.FenceTested{Node: name, From: n.me.Name, Agents: make([]api.FenceTestedWith, len(all))}
	var goes sync.WaitGroup
	for i, f := range all {
		goes.Go(func() { out.Agents[i] = n.testAgent(ctx, f) })
	}
	goes.Wait()
	return out, nil
}

// mayTest refuses a test while the node is being turned off: a device takes one at a time, and the other matters more.
func (n *Node) mayTest(ctx context.Context, name string) error {
	runs := false
	if r := n.state.get().Nodes[name].Fence; r != nil && r.Word == cluster.FenceBegun {
		runs = true
	}
	if l := n.currentLeading(); l != nil && !runs { // between two tries the record says that one failed
		said := make(chan bool, 1)
		if l.do(ctx, func(cluster.Instant) { said <- l.fences.running[name] != nil }) == nil {
			select {
			case runs = <-said:
			case <-l.ctx.Done():
			case <-ctx.Done():
			}
		}
	}
	if runs {
		return api.Refused("%s is being turned off: its agents are tested after that; see `ha-admin status`", name)
	}
	return nil
}

// fenceTests are those that run here, one for each node at most.
type fenceTests struct {
	mu   sync.Mutex
	runs map[string]bool
}

func (t *fenceTests) begin(node string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runs[node] {
		return false
	}
	if t.runs == nil {
		t.runs = map[string]bool{}
	}
	t.runs[node] = true
	return true
}

func (t *fenceTests) end(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.runs, node)
}

// testAgent has it look at its device, if it can, and at the node.
func (n *Node) testAgent(ctx context.Context, f config.Fence) (out api.FenceTestedWith) {
	out = api.FenceTestedWith{Level: f.Level, Agent: f.Agent, State: "unknown"}
	began := time.Now()
	defer func() { out.Ms = time.Since(began).Milliseconds() }()
	call := agent.Call{Agent: f.Agent, Node: f.Node, Options: f.Options, Limit: f.Timeout}
	if has, err := n.agents.Has(ctx, call, "monitor"); err == nil && has {
		call.Action = "monitor"
		if res := n.agents.Run(ctx, call); res.Err != nil || res.Exit != 0 {
			out.Text = "monitor: " + res.Why()
			return out
		}
	}
	switch said, why := n.agents.Status(ctx, call); said {
	case fence.IsOn:
		out.OK, out.State = true, "on"
	case fence.IsOff:
		out.OK, out.State = true, "off"
	case fence.NoStatus:
		out.OK, out.Text = true, "it has no status: when it says that it has turned the node off, its word is all there is"
	default:
		out.Text = "status: " + why
	}
	return out
}

func fenceRecord(n *cluster.Node) api.FenceRecord {
	r := n.Fence
	return api.FenceRecord{Word: string(r.Word), Attempt: r.Attempt, At: time.UnixMilli(r.AtMillis).UTC(), By: r.By, Person: r.Person, Process: r.Start, Off: r.Off != 0 && r.Off >= n.Start,
		Level: r.Level, Unverified: r.Unverified, Failed: r.Failed, Text: r.Text}
}

// fenceStatus is how a node can be fenced and what came of that last; nil: nothing is to be told.
func (n *Node) fenceStatus(v *view, name string) *api.FenceStatus {
	all, rec := n.conf().FencesOf(name), v.state.Nodes[name]
	if len(all) == 0 && rec.Fence == nil {
		return nil
	}
	out := &api.FenceStatus{}
	for _, f := range all {
		out.Devices = append(out.Devices, api.FenceDevice{Level: f.Level, Agent: f.Agent, Missing: n.missing.has(f.Agent)})
	}
	if rec.Fence != nil {
		r := fenceRecord(&rec)
		out.Last = &r
	}
	for _, volume := range sortedKeys(v.state.Volumes) {
		if vol := v.state.Volumes[volume]; vol.Primary == name && v.unfenced(&vol) != "" {
			out.Waits = append(out.Waits, volume)
		}
	}
	return out
}

// unfenced says why nobody may follow a volume's primary, where fencing is required; empty: it serves, or is surely gone.
func (v *view) unfenced(vol *cluster.Volume) string {
	if v.state.Fencing != cluster.FencingRequired || vol.Primary == "" || v.local[vol.Primary] != nil || v.state.Gone(vol.Primary, vol.Process) {
		return ""
	}
	text := fmt.Sprintf("fencing is required, and %s, its primary, was neither fenced nor confirmed to be off", vol.Primary)
	if f := v.state.Nodes[vol.Primary].Fence; f != nil {
		switch f.Word {
		case cluster.FenceBegun:
			text += fmt.Sprintf(": %s is turning it off", f.By)
		case cluster.FenceFailed:
			text += fmt.Sprintf(": %d tries failed, the last one says %s", f.Failed, orSaid(f.Text))
		default:
			text += ": " + strings.TrimSuffix(string(f.Word)+": "+f.Text, ": ")
		}
	}
	return text + fmt.Sprintf("; once it is off for sure, say so: `ha-admin fence confirm %s`", vol.Primary)
}

// fenceFigures are for those that can be fenced, or were to be.
func (n *Node) fenceFigures(st *cluster.State, s *metrics.Snapshot) {
	s.FencingRequired = st.Fencing == cluster.FencingRequired
	for _, name := range sortedKeys(st.Nodes) {
		rec, agents := st.Nodes[name], len(n.conf().FencesOf(name))
		if agents == 0 && rec.Fence == nil {
			continue
		}
		f := metrics.Fence{Node: name, Agents: agents}
		if r := rec.Fence; r != nil {
			f.Attempts, f.Failed, f.Off = r.Attempt, r.Failed, r.Off != 0 && r.Off >= rec.Start
		}
		s.Fences = append(s.Fences, f)
	}
}

package node

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
	"hacluster/heartbeat/fence"
	"hacluster/heartbeat/fence/agent"
)

// The leader's node runs the agents. Whom to turn off is the failover.Leader's word, or a person's; when and how often an agent is asked
// is a fence.Attempt's. When leadership ends what runs is killed, and the next leader begins again.

// Pauses between tries: of an attempt, and of attempts that could not even begin.
const (
	fencePause    = 2 * time.Second
	maxFencePause = 30 * time.Second
	fenceAgain    = time.Second
)

// fencers are the attempts that are under way, one for each node at most, and which nodes the Leader wants to be off.
type fencers struct {
	running map[string]*fencer
	wanted  map[string]failover.Fence
}

// fencer is one attempt. It has a goroutine of its own, which owns what is not said to be constant.
type fencer struct {
	l      *leading
	node   string
	start  uint64 // of the node's process that is meant, and all before it
	tries  int    // 0: until it is ended
	why    string
	person string        // who asked for it; empty: the Leader did
	ends   chan string   // sent by run, once; why it is to end
	done   chan struct{} // closed when it is over

	agents  []config.Fence // sorted as the attempt has them
	a       *fence.Attempt
	attempt uint64 // number of the try
	fenced  bool
	over    bool
	kill    context.CancelFunc  // of the agent that runs
	gone    chan struct{}       // closed when that one has ended
	answers chan fence.Answered // sent by what runs an agent, one for each; never full
}

// fence is the Leader's wish.
func (l *leading) fence(a failover.Fence) {
	if !a.Beside {
		l.fences.want(a)
	}
	if l.fences.running[a.Node] != nil {
		return // it is on it; if it means an older process, that one ends and this begins then
	}
	tries := 0
	if a.Beside {
		if tries = 2; len(l.n.conf().FencesOf(a.Node)) == 0 {
			l.core.FenceOver(a.Node)
			return
		}
	}
	l.beginFence(&fencer{node: a.Node, start: a.Start, tries: tries, why: a.Why})
}

func (f *fencers) want(a failover.Fence) {
	if f.wanted == nil {
		f.wanted = map[string]failover.Fence{}
	}
	f.wanted[a.Node] = a
}

// spare ends the wish. What a person asked for goes on.
func (l *leading) spare(a failover.Spare) {
	delete(l.fences.wanted, a.Node)
	if f := l.fences.running[a.Node]; f != nil && f.person == "" {
		select {
		case f.ends <- a.Why:
		default: // it was told
		}
	}
}

func (l *leading) refute(a failover.Refute) {
	r := l.n.state.get().Nodes[a.Node].Fence
	if r == nil {
		return
	}
	l.n.log.Error("a node was said to be off and answers: its fence agents lie", "peer", a.Node, "process", a.Start)
	c := cluster.FenceNode{Node: a.Node, Word: cluster.FenceRefuted, Start: a.Start, Attempt: r.Attempt + 1}
	l.proposeAside(l.n.command(cluster.Command{FenceNode: &c}), nil)
}

// endFencesOfOthers notes that what earlier leaders began is not under way any more.
func (l *leading) endFencesOfOthers(st *cluster.State) {
	for _, name := range sortedKeys(st.Nodes) {
		if r := st.Nodes[name].Fence; r != nil && r.Word == cluster.FenceBegun {
			c := cluster.FenceNode{Node: name, Word: cluster.FenceEnded, Start: r.Start, Attempt: r.Attempt, Text: "the leader changed meanwhile; if it is still to be off, the next one begins again"}
			l.proposeAside(l.n.command(cluster.Command{FenceNode: &c}), nil)
		}
	}
}

// beginFence lets it run, and what is wanted by then follow it.
func (l *leading) beginFence(f *fencer) {
	if l.fences.running == nil {
		l.fences.running = map[string]*fencer{}
	}
	f.l, f.ends, f.done, f.answers = l, make(chan string, 1), make(chan struct{}), make(chan fence.Answered, 1)
	l.fences.running[f.node] = f
	l.goes.Go(func() {
		f.run()
		_ = l.do(l.ctx, func(cluster.Instant) { // before it is told: who asks then begins a new one
			delete(l.fences.running, f.node)
			l.core.FenceOver(f.node)
			close(f.done)
		})
		select {
		case <-time.After(fenceAgain):
		case <-l.ctx.Done():
			return
		}
		_ = l.do(l.ctx, func(cluster.Instant) {
			if a, ok := l.fences.wanted[f.node]; ok {
				l.fence(a)
			}
		})
	})
}

// run is the fencer's goroutine.
func (f *fencer) run() {
	version, conf, changed := f.l.n.run.watch()
	f.agents = conf.FencesOf(f.node)
	slices.SortStableFunc(f.agents, func(a, b config.Fence) int { return cmp.Compare(a.Level, b.Level) })
	if len(f.agents) == 0 || len(f.l.n.env.Fence) == 0 {
		f.l.n.log.Error("a node is to be turned off and there is no agent for it: say that it is off with ha-admin fence confirm", "peer", f.node, "why", f.why)
		f.await(changed)
		return
	}
	f.a = fence.New(f.config())
	defer f.stop()
	f.step(fence.Begin{Random: rand.Float64()})
	for !f.over {
		st, applied := f.l.n.state.watch()
		if now := st.Nodes[f.node].Start; now > f.start {
			f.step(fence.End{Why: fmt.Sprintf("it was started anew, as process %d", now)})
			f.over = true
			break
		}
		timer := time.NewTimer(time.Hour)
		if due, ok := f.a.Due(); ok {
			timer.Reset(max(due.Sub(f.l.n.now()), 0))
		}
		select {
		case <-f.l.ctx.Done():
			f.over = true
		case why := <-f.ends:
			f.step(fence.End{Why: why})
		case a := <-f.answers:
			f.step(a)
		case <-timer.C:
			f.step(fence.Tick{})
		case <-applied:
		case <-changed:
			var now uint64
			if now, conf, changed = f.l.n.run.watch(); now != version {
				version = now
				if f.configuredAnew(conf) {
					f.step(fence.End{Why: "its agents are configured anew"})
				}
			}
		}
		timer.Stop()
	}
}

// await returns when the configuration may have agents, or nobody wants them.
func (f *fencer) await(changed <-chan struct{}) {
	select {
	case <-f.l.ctx.Done():
	case <-f.ends:
	case <-changed:
	case <-time.After(maxFencePause):
	}
}

func (f *fencer) config() fence.Config {
	c := fence.Config{Node: f.node, Tries: f.tries, Pause: fencePause, MaxPause: maxFencePause}
	for _, a := range f.agents {
		c.Agents = append(c.Agents, fence.Agent{Name: a.Agent, Level: a.Level, Timeout: a.Timeout, Retries: a.Tries - 1, Delay: a.Delay, RandomDelay: a.RandomDelay})
	}
	return c
}

func (f *fencer) configuredAnew(conf *config.Config) bool {
	now := conf.FencesOf(f.node)
	slices.SortStableFunc(now, func(a, b config.Fence) int { return cmp.Compare(a.Level, b.Level) })
	return !slices.EqualFunc(f.agents, now, config.Fence.Same)
}

func (f *fencer) step(ev fence.Event) {
	for acts := f.a.Step(f.l.n.now(), ev); len(acts) > 0; {
		act := acts[0]
		acts = acts[1:]
		switch act := act.(type) {
		case fence.Note:
			acts = append(acts, f.a.Step(f.l.n.now(), fence.Noted{OK: f.note(act)})...)
		case fence.Ask:
			if why := f.unwanted(act); why != "" {
				acts = append(acts, f.a.Step(f.l.n.now(), fence.End{Why: why})...)
				continue
			}
			f.ask(act)
		case fence.Kill:
			f.stop()
		case fence.Over:
			f.over, f.fenced = true, act.Fenced
		}
	}
}

// unwanted is why the node must not be turned off now, whatever was decided when the attempt began: delays and pauses lie between, and a
// leader that stood still meanwhile may lead no more.
func (f *fencer) unwanted(q fence.Ask) string {
	if q.Op != fence.OpOff {
		return ""
	}
	ctx, cancel := context.WithTimeout(f.l.ctx, f.l.n.conf().Timers.RTO)
	defer cancel()
	if err := f.l.raft.Barrier(ctx); err != nil {
		return fmt.Sprintf("it is not certain that %s leads: %v", f.l.n.me.Name, err)
	}
	if now := f.l.n.state.get().Nodes[f.node].Start; now > f.start {
		return fmt.Sprintf("it was started anew, as process %d", now)
	}
	select {
	case why := <-f.ends:
		return why
	default:
		return ""
	}
}

// agentEnd is how long an agent that is killed is waited for. One that hangs in the kernel for longer, with what holds it, acts no more,
// and this node is to be able to lead again.
const agentEnd = 5 * time.Second

// ask runs an agent beside us. Nobody but stop waits for it: the end of leadership must not hang with it.
func (f *fencer) ask(q fence.Ask) {
	f.stop() // there is none: one is asked at a time
	c := f.agents[q.Agent]
	ctx, cancel := context.WithCancel(f.l.ctx)
	gone := make(chan struct{})
	f.kill, f.gone = cancel, gone
	f.answers = make(chan fence.Answered, 1) // what a killed one says goes nowhere
	answers := f.answers
	call := agent.Call{Agent: c.Agent, Node: f.node, Options: c.Options, Limit: q.Limit}
	f.l.n.log.Info("asking a fence agent", "peer", f.node, "agent", c.Agent, "level", c.Level, "action", q.Op)
	go func() {
		defer close(gone)
		a := fence.Answered{Call: q.Call}
		if q.Op == fence.OpOff {
			a.Answer, a.Text = f.l.n.agents.Off(ctx, call)
		} else {
			a.Answer, a.Text = f.l.n.agents.Status(ctx, call)
		}
		f.l.n.log.Info("a fence agent answered", "peer", f.node, "agent", c.Agent, "level", c.Level, "action", q.Op, "answer", a.Answer, "text", a.Text)
		answers <- a
	}()
}

// stop kills the agent that runs, if one does, and returns when nothing of it is left, or when it hangs all the same.
func (f *fencer) stop() {
	if f.kill == nil {
		return
	}
	f.kill()
	late := time.NewTimer(agentEnd)
	defer late.Stop()
	select {
	case <-f.gone:
	case <-late.C:
		f.l.n.log.Error("a fence agent was killed and does not end: it is not waited for", "peer", f.node, "waited", agentEnd)
		f.l.n.events.add("fence agent hangs", "", fmt.Sprintf("an agent for %s was killed and has not ended %v later: it is not waited for; look at the mounts that agents and password files are on", f.node, agentEnd))
	}
	f.kill, f.gone = nil, nil
}

var fenceWords = map[fence.Word]cluster.FenceWord{fence.Begun: cluster.FenceBegun, fence.Fenced: cluster.FenceOff, fence.NotOff: cluster.FenceFailed, fence.GivenEnd: cluster.FenceEnded}

// note has the cluster note it, and reports whether it has. One of unknown outcome is proposed again: when it had been applied, the record
// says so (R27).
func (f *fencer) note(n fence.Note) bool {
	c := cluster.FenceNode{Node: f.node, Word: fenceWords[n.Word], Start: f.start, Level: n.Level, Unverified: n.Unverified, Person: f.person, Text: n.Text}
	if n.Word == fence.Begun {
		f.attempt, c.Text = 1, f.why
		if r := f.record(); r != nil {
			f.attempt = r.Attempt + 1
		}
	}
	c.Attempt = f.attempt
	for {
		ctx, cancel := context.WithTimeout(f.l.ctx, f.l.n.conf().Timers.RTO)
		res, err := f.l.commit(ctx, f.l.n.command(cluster.Command{FenceNode: &c}))
		cancel()
		r := f.record()
		switch {
		case err == nil && (res.Void == "" || r != nil && r.Attempt == c.Attempt && r.Word == c.Word && r.Start == c.Start && r.By == f.l.n.me.Name):
			f.l.n.log.Warn("fencing: "+string(c.Word), "peer", f.node, "process", f.start, "attempt", c.Attempt, "text", c.Text)
			return true
		case err == nil:
			f.l.n.log.Warn("fencing does not go on", "peer", f.node, "attempt", c.Attempt, "word", c.Word, "why", res.Void)
			return false
		}
		select {
		case <-f.l.ctx.Done():
			return false
		case <-time.After(f.l.n.conf().Timers.Tick):
		}
	}
}

func (f *fencer) record() *cluster.Fence { return f.l.n.state.get().Nodes[f.node].Fence }

// cleanAgents ends what an earlier process left that was killed together with what held its agents.
func (n *Node) cleanAgents() {
	if len(n.env.Fence) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := agent.Clean(ctx, n.cfg.DataDir()); err != nil {
		n.log.Error("fence agents of an earlier process run still", "error", fmt.Errorf("end them: %w", err))
	}
}

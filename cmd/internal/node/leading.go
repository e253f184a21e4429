package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hacluster/blockdev/failpoint"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
	"hacluster/heartbeat/failover"
	"hacluster/replication"
)

// leading is this node's time as Raft leader in one term: the runner of a failover.Leader. One goroutine owns the
// Leader; everybody else sends it what to do.
type leading struct {
	n      *Node
	raft   *consensus.Raft
	term   uint64
	began  cluster.Instant
	before cluster.Instant                // when the leader before us was last heard here
	inbox  chan func(now cluster.Instant) // sent by handlers and answers, received by run; full: the sender waits, bounded by its context
	core   *failover.Leader               // run's own
	heard  map[string]cluster.Instant     // run's own: the last sign of life of each node
	open   map[string]cluster.Instant     // run's own: when the last grant of each node has surely run out
	timers config.Timers                  // run's own: those of the newest state
	since  cluster.Instant                // run's own: when the configuration of the newest state was seen
	config uint64                         // run's own: its version
	sites  *config.Config                 // run's own: what says which nodes are together
	joint  *gather                        // what primaries and replicas propose, and figures
	fences fencers                        // run's own
	asked  cluster.Instant                // run's own: when leases were last proposed to be settled
	goes   sync.WaitGroup
	cancel context.CancelFunc
	ctx    context.Context

	mu      sync.Mutex
	waiting map[requestKey]chan cluster.Grant // lease requests that want an answer
	records map[recordKey]*record             // failovers decided in this term, the newest of each volume
	newest  map[string]cluster.Epoch          // whose record that is
	orders  map[chan error]recordKey          // hand-overs that a person waits for
}

type requestKey struct {
	node          string
	start, number uint64
}

type recordKey struct {
	volume string
	epoch  cluster.Epoch
}

// onLeader is called by raft for each change, in order.
func (n *Node) onLeader(term uint64, leader bool) {
	n.mu.Lock()
	old := n.leading
	n.leading = nil
	r := n.raft
	stopping := n.stopping
	n.mu.Unlock()
	if old != nil {
		old.end()
	}
	if !leader || stopping {
		return
	}
	if r == nil { // elected before Open returned
		select {
		case <-n.joined:
			r = n.raftIfOpen()
		case <-time.After(n.conf().Timers.RTO):
			return
		}
	}
	now := n.now()
	before := now
	if at := r.LastContact(); !at.IsZero() {
		before = now.Add(-time.Since(at))
	}
	l := &leading{n: n, raft: r, term: term, timers: n.conf().Timers, began: now, before: before, inbox: make(chan func(cluster.Instant), 256), heard: map[string]cluster.Instant{},
		waiting: map[requestKey]chan cluster.Grant{}, records: map[recordKey]*record{}, newest: map[string]cluster.Epoch{}, orders: map[chan error]recordKey{}}
	l.core = failover.NewLeader(failover.Config{Self: n.me.Name, Term: term, Lease: n.conf().Timers.Lease}, l.began)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.joint = &gather{send: l.judged, time: func() time.Duration { return n.conf().Timers.RTO }, goes: func(f func()) { l.goes.Go(f) }, ctx: l.ctx}
	n.mu.Lock()
	if n.stopping {
		n.mu.Unlock()
		l.cancel()
		return
	}
	n.leading = l
	n.mu.Unlock()
	n.won.Add(1)
	n.log.Info("leading the Raft group", "term", term)
	l.goes.Go(l.run)
}

func (n *Node) currentLeading() *leading {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leading
}

func (l *leading) end() {
	l.cancel()
	l.goes.Wait()
}

// run begins with a barrier, so that the state is at least as new as our term, and then feeds the Leader.
func (l *leading) run() {
	for {
		ctx, cancel := context.WithTimeout(l.ctx, l.n.conf().Timers.RTO)
		err := l.raft.Barrier(ctx)
		cancel()
		if err == nil {
			break
		}
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(l.n.conf().Timers.Tick):
		}
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	st, changed := l.n.state.watch()
	if err := l.n.sameTimers(st); err != nil {
		l.n.fail(err) // before anything was decided or granted
		return
	}
	l.foundIdentity(st)
	l.followLease(st)
	l.followSites()
	l.endFencesOfOthers(st)
	l.carryOut(l.core.Applied(l.n.now(), st, l.voters(st), true))
	ticked := l.n.now()
	for {
		tick.Reset(l.untilTick(ticked))
		select {
		case <-l.ctx.Done():
			return
		case f := <-l.inbox:
			f(l.n.now())
		case <-changed:
			st, changed = l.n.state.watch()
			l.foundIdentity(st)
			l.followLease(st)
			l.followSites()
			l.carryOut(l.core.Applied(l.n.now(), st, l.voters(st), true))
		case <-tick.C:
			ticked = l.n.now()
			l.settleLeases(st)
			l.followSites()
			l.carryOut(l.core.Tick(ticked))
		}
	}
}

// untilTick is when time is to act, at the earliest a Tick and at the latest half a lease after it last did. In between the
// Leader is not woken up only to find nothing to do: that was a seventh of the work of an idle one.
func (l *leading) untilTick(last cluster.Instant) time.Duration {
	now := l.n.now()
	next := max(now.Add(l.core.Rest(now)), last.Add(l.timers.Tick))
	return max(min(next, last.Add(l.timers.Lease/2)).Sub(now), 0)
}

// foundIdentity gives a new cluster its identity, nodes and volumes, as all agreed when it was founded.
func (l *leading) foundIdentity(st *cluster.State) {
	if f := l.n.formed(); st.ID == "" && f != nil {
		l.proposeAside(l.n.command(cluster.Command{Init: f}), nil)
	}
}

// voters are the nodes that vote, by the newest configuration.
func (l *leading) voters(st *cluster.State) (names []string) {
	servers, err := l.raft.Servers()
	if err != nil {
		return nil
	}
	byID := map[string]string{}
	for name, node := range st.Nodes {
		byID[node.RaftID] = name
	}
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		name := byID[s.ID]
		if name == "" {
			name = s.ID // unknown to the state so far: it counts as a voter that does not answer
		}
		names = append(names, name)
	}
	return names
}

// do runs f in the goroutine that owns the Leader.
func (l *leading) do(ctx context.Context, f func(now cluster.Instant)) error {
	select {
	case l.inbox <- f:
		return nil
	case <-l.ctx.Done():
		return consensus.ErrNotLeader
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *leading) carryOut(acts []failover.Action) {
	var decided []cluster.Command // about one volume each: what is decided together is one entry
	for _, a := range acts {
		switch a := a.(type) {
		case failover.Ask:
			l.ask(a)
		case failover.CheckSelf:
			leader, term := l.raft.State()
			l.carryOut(l.core.Confirm(l.n.now(), a.Round, term, leader))
		case failover.Reply:
			l.reply(a.Grant)
		case failover.Propose:
			decided = append(decided, l.n.command(a.Command))
		case failover.HandOver:
			l.goes.Go(func() { l.handOver(a) })
		case failover.MoveLeadership:
			l.goes.Go(func() { l.moveTo(a.To) })
		case failover.Fence:
			l.fence(a)
		case failover.Spare:
			l.spare(a)
		case failover.Refute:
			l.refute(a)
		}
	}
	for _, c := range entriesOf(decided) {
		l.decided(c)
	}
}

// ask puts the question to every other node at once, and takes our own reports.
func (l *leading) ask(a failover.Ask) {
	st := l.n.state.get()
	l.n.seen.note(l.n.dir.raftID(), l.n.reached(l.raft))
	seen := l.n.seen.all()
	for name, node := range st.Nodes {
		if name == l.n.me.Name {
			continue
		}
		l.goes.Go(func() {
			ctx, cancel := context.WithTimeout(l.ctx, l.n.conf().Timers.Lease/2)
			defer cancel()
			client, err := l.n.peers.control(name)
			if err != nil {
				return
			}
			ans, err := client.Ask(ctx, &control.Ask{Round: a.Round, Seen: seen, Reports: a.Reports})
			if err == nil {
				l.answered(ctx, node, a.Round, ans)
			}
		})
	}
	var mine []cluster.Report
	if a.Reports {
		mine = l.n.vols.reports()
	}
	_, term := l.raft.State()
	l.carryOut(l.core.Answer(l.n.now(), l.n.me.Name, a.Round, term, mine))
}

const reasonAnswer = "refused: answer of another node, or under another Raft id, than the cluster knows"

// answered takes what a node said, if it is the one that the state names: whoever answers under another Raft id, as a node
// whose state went back does, is not the voter whose word counts, and its replicas are no members (R8, R32).
func (l *leading) answered(ctx context.Context, node cluster.Node, round uint64, ans *control.Answer) {
	if ans.Node != node.Name || ans.RaftID != node.RaftID {
		l.n.trans.Refused(reasonAnswer, "node", node.Name, "raft_id", node.RaftID, "answered", ans.Node, "as", ans.RaftID)
		return
	}
	l.n.seen.note(ans.RaftID, control.Seen{Term: ans.Term, Index: ans.Index})
	_ = l.do(ctx, func(now cluster.Instant) {
		l.heard[node.Name] = now
		l.carryOut(l.core.Answer(now, node.Name, round, ans.Term, ans.Reports))
	})
}

func (l *leading) reply(g cluster.Grant) {
	if l.open == nil {
		l.open = map[string]cluster.Instant{}
	}
	l.open[g.Node] = l.n.now().Add(g.Length + g.Length/50)
	key := requestKey{g.Node, g.Start, g.Number}
	l.mu.Lock()
	c := l.waiting[key]
	delete(l.waiting, key)
	l.mu.Unlock()
	if c != nil {
		failpoint.Hit(failpoint.LeaderGrant)
		c <- g
	}
}

// request is a lease request's way through a confirmation round.
func (l *leading) request(ctx context.Context, m *control.Lease) (*cluster.Grant, error) {
	r := m.Request
	key, c := requestKey{r.Node, r.Start, r.Number}, make(chan cluster.Grant, 1)
	l.mu.Lock()
	l.waiting[key] = c
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, key)
		l.mu.Unlock()
	}()
	err := l.do(ctx, func(now cluster.Instant) {
		l.heard[r.Node] = now
		if m.By != "" {
			l.core.Relayed(now, r.Node, m.By)
		}
		l.carryOut(l.core.Request(now, r))
	})
	if err != nil {
		return nil, err
	}
	select {
	case g := <-c:
		return &g, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, consensus.ErrNotLeader
	}
}

// decided hands the Leader's own command, or a batch of them, to Raft and keeps what is needed to tell how the failovers went.
func (l *leading) decided(c cluster.Command) {
	now, st := l.n.now(), l.n.state.get()
	items := c.Items()
	records := make([]*record, len(items))
	for i := range items {
		if p := items[i].Promote; p != nil {
			records[i] = l.deciding(now, st, p)
		}
	}
	l.proposeAside(cluster.Together(items), func(err error) {
		l.mu.Lock()
		for _, rec := range records {
			if rec != nil {
				rec.decide = l.n.now().Sub(rec.decided)
			}
		}
		l.mu.Unlock()
		l.retry(items, err)
	})
}

// deciding notes a promotion that is about to be proposed, and what its record in the history needs.
func (l *leading) deciding(now cluster.Instant, st *cluster.State, p *cluster.Promote) *record {
	from := st.Volumes[p.Volume].Primary
	rec := &record{decided: now}
	// A primary that was never heard in this term was the leader before, or died with it.
	heard := l.before
	if at := l.heard[from]; at != 0 {
		heard = at
	}
	rec.silent = now.Sub(heard)
	p.SilentMillis = rec.silent.Milliseconds()
	vol := st.Volumes[p.Volume]
	p.Bound = l.n.bound(&vol)
	l.n.log.Info("promoting", "volume", p.Volume, "node", p.Candidate, "epoch", p.Epoch+1, "from", from, "why", p.Reason, "basis", p.Basis)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, recordKey{p.Volume, l.newest[p.Volume]})
	l.newest[p.Volume] = p.Epoch + 1
	l.records[recordKey{p.Volume, p.Epoch + 1}] = rec
	return rec
}

// retry has a decision taken anew whose command certainly never reached the log, as when a transfer of leadership was
// under way that then failed: without it the volume would be granted to nobody for the rest of the term.
func (l *leading) retry(items []cluster.Command, err error) {
	if err == nil || errors.Is(err, consensus.ErrUnknown) {
		return
	}
	_ = l.do(l.ctx, func(cluster.Instant) {
		for _, c := range items {
			switch {
			case c.Promote != nil:
				l.core.Retry(c.Promote.Volume)
			case c.Form != nil:
				l.core.Retry(c.Form.Volume)
			}
		}
	})
}

// proposeAside hands a command of the leader itself to Raft. One of unknown outcome is handed over again as it is, in the
// same term: if it was applied already, the second is void (R7, R27). It may as well have never reached the log, and then
// nothing else would, for the volume is granted to nobody before the record moves. What a later try comes to, say that it
// appended nothing, tells nothing of the first: the outcome stays unknown until one is applied, or the term ends.
func (l *leading) proposeAside(c cluster.Command, then func(error)) {
	l.goes.Go(func() {
		err := l.tryAside(c)
		if errors.Is(err, consensus.ErrUnknown) {
			err = l.insist(c, err)
		}
		if then != nil {
			then(err)
		}
	})
}

// insist proposes c until it is applied; the error is unknown, as the first one was.
func (l *leading) insist(c cluster.Command, unknown error) error {
	for {
		err := l.tryAside(c)
		if err == nil {
			return nil
		}
		select {
		case <-l.ctx.Done():
			return unknown
		case <-time.After(l.n.conf().Timers.Tick):
		}
	}
}

func (l *leading) tryAside(c cluster.Command) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.n.conf().Timers.RTO)
	defer cancel()
	if c.Items()[0].Promote != nil {
		failpoint.Hit(failpoint.LeaderPromote)
		defer failpoint.Hit(failpoint.LeaderPromoted)
	}
	propose := l.commit
	if c.Failover != nil {
		propose = l.joint.propose // figures, of as many as move
	}
	res, err := propose(ctx, c)
	for _, r := range res.Results() {
		if r.Void != "" {
			l.n.log.Debug("command void", "why", r.Void)
		}
	}
	return err
}

// propose takes anyone's command, or a batch of them.
func (l *leading) propose(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	items := c.Items()
	if !items[0].Batches() {
		return l.judged(ctx, c)
	}
	res, err := l.joint.propose(ctx, c)
	if err == nil && len(items) == 1 && res.Index == 0 && res.Void != "" {
		err = errors.New(res.Void) // refused, among others
	}
	return res, err
}

// judged proposes what may be proposed now: drops are checked against the leases (R4), when they are sent and not when they came, for
// what waits behind another proposal may wait until its lease is over.
func (l *leading) judged(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	items := c.Items()
	results, err := l.refused(ctx, items)
	if err != nil {
		return cluster.Result{}, err
	}
	var allowed []cluster.Command
	for i, item := range items {
		if results[i].Void == "" {
			allowed = append(allowed, item)
		} else if len(items) == 1 && item.FenceNode == nil { // a person is to read the reason, and not to wait for another
			return cluster.Result{}, errors.New(results[i].Void)
		}
	}
	if len(allowed) == 0 {
		return resultOf(results), nil
	}
	res, err := l.commit(ctx, cluster.Together(allowed))
	if err != nil {
		return cluster.Result{}, err
	}
	parts := res.Results()
	for i := range results {
		if results[i].Void == "" && len(parts) > 0 {
			results[i], parts = parts[0], parts[1:]
		}
	}
	return resultOf(results), nil
}

// refused says, for each command, why it does not get into the log; those that may have no word.
func (l *leading) refused(ctx context.Context, items []cluster.Command) ([]cluster.Result, error) {
	results := make([]cluster.Result, len(items))
	if !slices.ContainsFunc(items, func(c cluster.Command) bool { return c.Drop != nil || c.FenceNode != nil }) {
		return results, nil
	}
	judged := make(chan struct{})
	err := l.do(ctx, func(now cluster.Instant) {
		for i, c := range items {
			if c.Drop != nil && !l.core.MayDrop(now, c) {
				results[i].Void = fmt.Sprintf("%s proposes to drop %s without a lease in force on %s", c.By, c.Drop.Node, c.Drop.Volume)
			}
		}
		for i, c := range items {
			if c.FenceNode != nil && c.FenceNode.Word == cluster.FenceConfirmed {
				results[i].Void = l.confirmed(now, c.FenceNode.Node)
			}
		}
		close(judged)
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-judged:
		return results, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, consensus.ErrNotLeader
	}
}

func (l *leading) commit(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	began := time.Now()
	entry := c.Encode()
	if st := l.n.state.get(); !st.Readable(entry) {
		if entry = c.Plain(); !st.Readable(entry) {
			return cluster.Result{Void: "a node runs a version that does not know this command: update all, and give it again"}, nil
		}
	}
	res, _, err := l.raft.Propose(ctx, entry)
	l.n.commits.Observe(time.Since(began))
	r, _ := res.(cluster.Result)
	return r, err
}

func (l *leading) giveUp(ctx context.Context, g failover.GiveUp) error {
	failpoint.Hit(failpoint.LeaderGiveUp)
	defer failpoint.Hit(failpoint.LeaderGaveUp)
	counted := make(chan bool, 1)
	err := l.do(ctx, func(now cluster.Instant) {
		acts, ok := l.core.GiveUp(now, g)
		counted <- ok
		l.heard[g.Node] = now
		l.carryOut(acts)
	})
	if err != nil {
		return err
	}
	select {
	case ok := <-counted:
		if !ok {
			return replication.ErrOvertaken
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return consensus.ErrNotLeader
	}
}

// moveTo gives leadership to a node that the Leader found better: one that is no primary, or that the primary reaches.
func (l *leading) moveTo(node string) {
	ctx, cancel := context.WithTimeout(l.ctx, l.n.conf().Timers.RTO)
	defer cancel()
	id := l.n.state.get().Nodes[node].RaftID
	if err := l.raft.TransferLeadership(ctx, id); err != nil && l.ctx.Err() == nil {
		l.n.log.Warn("leadership did not move", "to", node, "error", err)
	}
}

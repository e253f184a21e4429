package replication

import (
	"context"
	"errors"
	"fmt"

	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// labNodeView is a labNode as its replica sees it.
type labNodeView struct{ n *labNode }

var _ Node = labNodeView{}

func (v labNodeView) Now() cluster.Instant { return v.n.l.now() }

// Heard: who has a lease hears the leader all the time, else nobody has said when.
func (v labNodeView) Heard() (asked, there cluster.Instant) {
	v.n.leaseMu.Lock()
	defer v.n.leaseMu.Unlock()
	if !v.n.granted {
		return 0, 0
	}
	return v.n.l.now(), v.n.l.now()
}

func (v labNodeView) Lease(_ string, e cluster.Epoch) cluster.Instant {
	v.n.leaseMu.Lock()
	defer v.n.leaseMu.Unlock()
	if !v.n.granted || e <= v.n.gaveUp {
		return 0
	}
	return 1 << 62
}

func (v labNodeView) Propose(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	if err := ctx.Err(); err != nil {
		return cluster.Result{}, err
	}
	if v.n.dark.Load() {
		return cluster.Result{}, errFault
	}
	return v.n.l.propose(v.n, c)
}

func (v labNodeView) GiveUp(_ context.Context, _ string, e cluster.Epoch, to string, failed bool) error {
	n := v.n
	if n.dark.Load() {
		return errFault
	}
	n.leaseMu.Lock()
	n.gaveUp = e
	n.leaseMu.Unlock()
	n.get().LeaseChanged()
	n.mu.Lock()
	n.giveUps = append(n.giveUps, fmt.Sprintf("%d %s %t", e, to, failed))
	f := n.onGiveUp
	n.mu.Unlock()
	if f != nil {
		return f(to, failed)
	}
	err := n.l.handOn(n, to, failed)
	if err != nil { // nobody was promoted: a leader answers the next request with a lease again
		n.leaseMu.Lock()
		if n.gaveUp == e {
			n.gaveUp--
		}
		n.leaseMu.Unlock()
		n.get().LeaseChanged()
	}
	return err
}

// handOn promotes another member, as the leader would.
func (l *lab) handOn(from *labNode, to string, failed bool) error {
	v := l.volume()
	for _, m := range v.MemberNames() {
		if m == from.name || to != "" && m != to || l.nodes[m].dark.Load() {
			continue
		}
		p := &cluster.Promote{On: l.on(), Term: 1, Candidate: m, Member: l.nodes[m].member(), Basis: cluster.BasisHandOver}
		if failed {
			p.Leave = []string{from.name}
		}
		if failed && l.conf.mode == cluster.ModeAsync { // it may lack what was acknowledged, and is a member as what it has in memory
			p.Basis = cluster.BasisUnchanged
		}
		l.nodes[m].grant()
		if res := l.apply(cluster.Command{Promote: p}); res.Void != "" {
			return errors.New(res.Void)
		}
		return nil
	}
	return errors.New("no member to take it")
}

func (v labNodeView) Greet(ctx context.Context, peer, by string, h wire.Hello) (*link.Sender, wire.HelloReply, error) {
	if by != "" {
		b := v.n.l.nodes[by]
		c, err := b.cable.dial(ctx, b.relay.addr, &v.n.cable)
		if err != nil {
			return nil, wire.HelloReply{}, err
		}
		b.relay.opened.Add(1)
		return link.DialOn(ctx, c, h, v.n.l.line)
	}
	return v.n.dial(ctx, v.n.l.nodes[peer], h)
}

func (v labNodeView) Left(string) (cluster.Epoch, int64) { return labPoint.Epoch, labPoint.AtMillis }

func (v labNodeView) Serving(string, cluster.Epoch)  {}
func (v labNodeView) FirstAck(string, cluster.Epoch) {}

func (v labNodeView) Event(_, kind, text string) {
	v.n.mu.Lock()
	defer v.n.mu.Unlock()
	v.n.events, v.n.texts = append(v.n.events, kind), append(v.n.texts, kind+": "+text)
}

package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// leaseHolder renews this node's lease: a request each quarter of its length, to the leader directly or by way of
// another node.
type leaseHolder struct {
	n    *Node
	kick chan struct{} // ask now; room for one

	mu     sync.Mutex
	holder *cluster.Holder
	flying int             // requests without an answer
	failed int             // in a row: others are asked to relay
	heard  cluster.Instant // when the newest grant was taken
}

// maxFlying bounds the requests that wait for an answer at a time.
const maxFlying = 6

func newLeaseHolder(n *Node) *leaseHolder {
	return &leaseHolder{n: n, kick: make(chan struct{}, 1), holder: cluster.NewHolder(n.me.Name, n.dir.id.Start)}
}

func (l *leaseHolder) kickNow() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *leaseHolder) run(ctx context.Context) error {
	select {
	case <-l.n.joined:
	case <-ctx.Done():
		return nil
	}
	var asks sync.WaitGroup
	defer asks.Wait()
	every := l.n.conf().Timers.Renew
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if now := l.n.conf().Timers.Renew; now != every { // whoever changed it has kicked us
			every = now
			tick.Reset(every)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.kick:
		}
		l.mu.Lock()
		busy := l.flying >= maxFlying
		if !busy {
			l.flying++
		}
		l.mu.Unlock()
		if !busy {
			asks.Go(func() { l.ask(ctx) })
		}
	}
}

// ask sends one request; the lease counts from the moment before.
func (l *leaseHolder) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.n.conf().Timers.Lease)
	defer cancel()
	reports := l.n.vols.leaseReports()
	l.mu.Lock()
	has, term := l.holder.Has()
	number := l.holder.Next(l.n.now())
	failed := l.failed + l.flying - 1 // a request without an answer yet may never get one: the next goes another way
	l.mu.Unlock()
	req := cluster.LeaseRequest{Node: l.n.me.Name, Start: l.n.dir.id.Start, Number: number, Boot: fmt.Sprintf("%x", l.n.boot),
		DataDir: l.n.dir.id.ID, Reports: reports, Has: has, HasTerm: term}
	g, err := l.send(ctx, req, failed)
	l.mu.Lock()
	l.flying--
	if err != nil {
		l.failed++
		l.mu.Unlock()
		return
	}
	l.failed = 0
	now, names := l.n.now(), l.holder.Renamed()
	ran := l.holder.Remaining(now) > 0 // read under the mutex under which a gate looks: one that found the lease over is told
	taken := l.holder.Answer(*g)
	if taken {
		l.heard = now
	}
	names = l.holder.Renamed() - names
	l.mu.Unlock()
	if l.n.vols.awaitsName() {
		time.AfterFunc(l.n.conf().Timers.Renew/8, l.kickNow) // clients wait for it: sooner than at the next renewal
	}
	switch {
	case !taken:
	case ran && names == 0:
		l.n.vols.crowd.Renewed() // of a thousand volumes, those that have something to do
	default:
		l.n.vols.leaseChanged()
	}
}

// send asks the leader; when that failed before, every second request goes by way of another node (R8).
func (l *leaseHolder) send(ctx context.Context, req cluster.LeaseRequest, failed int) (*cluster.Grant, error) {
	leader := l.n.leaderName()
	if leader == l.n.me.Name {
		return l.n.Lease(ctx, &control.Lease{Request: req})
	}
	to := leader
	if others := l.n.others(leader); (leader == "" || failed%2 == 1) && len(others) > 0 {
		to = others[failed/2%len(others)]
	}
	if to == "" {
		return nil, errNoLeader
	}
	client, err := l.n.peers.control(to)
	if err != nil {
		return nil, err
	}
	return client.Lease(ctx, &control.Lease{Request: req})
}

// others are the nodes that are neither this one nor except.
func (n *Node) others(except string) (names []string) {
	for _, c := range n.cfg.Nodes {
		if c.Name != n.me.Name && c.Name != except {
			names = append(names, c.Name)
		}
	}
	return names
}

// until is when the right to serve ends.
func (l *leaseHolder) until(volume string, e cluster.Epoch) cluster.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder.Until(volume, e)
}

// newest is when the newest grant was asked for, and when it was there.
func (l *leaseHolder) newest() (asked, there cluster.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder.Asked(), l.heard
}

func (l *leaseHolder) remaining() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.holder.Remaining(l.n.now()), 0)
}

// underWay is how many requests wait for their answer.
func (l *leaseHolder) underWay() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flying
}

// giveUp ends the lease on a volume here, then tells the leader. Not heeded is an error; the lease is gone all the
// same, until a request made from now on is granted.
func (l *leaseHolder) giveUp(ctx context.Context, volume string, e cluster.Epoch, to string, failed bool) error {
	l.mu.Lock()
	number, term := l.holder.GiveUp(volume), l.holder.Term()
	l.mu.Unlock()
	l.n.vols.leaseChanged()
	g := failover.GiveUp{Node: l.n.me.Name, Start: l.n.dir.id.Start, Number: number, Term: term, Volume: volume, Epoch: e, To: to, Failed: failed}
	leader := l.n.leaderName()
	switch leader {
	case "":
		return errNoLeader
	case l.n.me.Name:
		_, err := l.n.GiveUp(ctx, &control.GiveUp{GiveUp: g})
		return err
	}
	client, err := l.n.peers.control(leader)
	if err != nil {
		return err
	}
	_, err = client.GiveUp(ctx, &control.GiveUp{GiveUp: g})
	return err
}

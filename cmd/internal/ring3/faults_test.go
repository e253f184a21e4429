package ring3

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/node"
)

// fault is one thing that can happen. It returns when what it broke can be whole again.
type fault struct {
	name   string
	weight int
	do     func(w *world) error
}

var faults = []fault{
	{"the process crashes", 4, func(w *world) error { return w.crashes(false) }},
	{"the power goes", 4, func(w *world) error { return w.crashes(true) }},
	{"the power of several goes", 2, (*world).blackout},
	{"a clean stop", 2, (*world).restart},
	{"a cut", 4, func(w *world) error { return w.cut(false) }},
	{"a cut in one direction", 4, func(w *world) error { return w.cut(true) }},
	{"a slow link", 2, (*world).slowLink},
	{"a hand-over", 3, (*world).handOver},
	{"disk errors", 2, (*world).diskErrors},
	{"a slow disk", 2, (*world).slowDisk},
	{"a crash behind a cut", 3, (*world).crashBehindCut},
	{"another target", 2, (*world).newTarget},
	{"the leader goes, then the primary", 2, (*world).leaderThenPrimary},
}

func (w *world) draw() fault {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	at := w.rnd.IntN(sum)
	for _, f := range faults {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	panic("no fault drawn")
}

func (w *world) someone() *machine { return w.m[names[w.rnd.IntN(len(names))]] }
func (w *world) holder() *machine  { return w.m[holders[w.rnd.IntN(len(holders))]] }

// between draws a time, short ones as often as long ones.
func (w *world) between(least, most time.Duration) time.Duration {
	for least*2 < most && w.rnd.IntN(2) == 0 {
		most /= 2
	}
	return least + time.Duration(w.rnd.Int64N(int64(most-least)))
}

func (w *world) crashes(power bool) error {
	m, down := w.someone(), w.between(10*time.Millisecond, 15*time.Second)
	w.tell("%s crashes (power %t) for %v", m.name, power, down)
	if err := m.crash(power); err != nil {
		return err
	}
	time.Sleep(down)
	return m.start()
}

// blackout takes the power of two or all; they come back one after the other.
func (w *world) blackout() error {
	order := w.rnd.Perm(len(names))[:2+w.rnd.IntN(2)]
	for _, i := range order {
		w.tell("%s loses its power", names[i])
		if err := w.m[names[i]].crash(true); err != nil {
			return err
		}
		if w.rnd.IntN(2) == 0 {
			time.Sleep(w.between(time.Millisecond, 4*time.Second))
		}
	}
	for _, k := range w.rnd.Perm(len(order)) {
		time.Sleep(w.between(10*time.Millisecond, 8*time.Second))
		w.tell("%s is back", names[order[k]])
		if err := w.m[names[order[k]]].start(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) restart() error {
	m, down := w.someone(), w.between(10*time.Millisecond, 10*time.Second)
	w.whole = false
	w.tell("%s is stopped for %v", m.name, down)
	if err := m.shut(); err != nil {
		return fmt.Errorf("%s did not stop cleanly: %w", m.name, err)
	}
	time.Sleep(down)
	return m.start()
}

// sever cuts directions between a machine and others, on all cables or those of TCP alone.
func (w *world) sever(ps []path, gossip bool) (heal func()) {
	w.whole = false
	each := func(tcp func(path), cable func(a, b string, i int)) {
		for _, p := range ps {
			tcp(p)
			for i := range 2 {
				if gossip {
					cable(p.from, p.to, i)
				}
			}
		}
	}
	each(w.net.cutPath, func(a, b string, i int) { w.gossip.Cut(gossipAddr(a, i), gossipAddr(b, i)) })
	return func() {
		each(w.net.healPath, func(a, b string, i int) { w.gossip.Heal(gossipAddr(a, i), gossipAddr(b, i)) })
	}
}

// drawCut draws whom a cut parts.
func (w *world) drawCut(oneWay bool) (ps []path) {
	m := w.someone()
	others := w.rnd.Perm(len(names))
	for _, i := range others[:1+w.rnd.IntN(len(others))] {
		o := names[i]
		if o == m.name {
			continue
		}
		ps = append(ps, path{m.name, o})
		if !oneWay {
			ps = append(ps, path{o, m.name})
		}
	}
	if oneWay && w.rnd.IntN(2) == 0 {
		for i := range ps {
			ps[i] = path{ps[i].to, ps[i].from}
		}
	}
	return ps
}

func (w *world) cut(oneWay bool) error {
	ps, gossip, d := w.drawCut(oneWay), w.rnd.IntN(2) == 0, w.between(50*time.Millisecond, 40*time.Second)
	w.tell("cut %v (gossip too: %t) for %v", ps, gossip, d)
	heal := w.sever(ps, gossip)
	time.Sleep(d)
	heal()
	return nil
}

func (w *world) slowLink() error {
	ps, by, d := w.drawCut(w.rnd.IntN(2) == 0), w.between(5*time.Millisecond, 400*time.Millisecond), w.between(time.Second, 30*time.Second)
	w.tell("slow %v by %v for %v", ps, by, d)
	w.whole = false
	for _, p := range ps {
		w.net.slow(p, by)
	}
	time.Sleep(d)
	for _, p := range ps {
		w.net.slow(p, 0)
	}
	return nil
}

// handOver orders one; it may be refused.
func (w *world) handOver() error {
	m := w.someone()
	if m.node == nil {
		return nil
	}
	w.whole = false
	ctx, cancel := context.WithTimeout(context.Background(), 2*rto)
	defer cancel()
	f, err := m.node.Failover(ctx, api.FailoverRequest{Volume: "vol"})
	w.tell("hand-over ordered at %s: to %q, %v", m.name, f.To, err)
	return nil
}

// newTarget changes the RTO target, and with it every lease and time-out, while something else may go wrong.
func (w *world) newTarget() error {
	m, target := w.someone(), []time.Duration{2 * time.Second, rto, 5 * time.Second}[w.rnd.IntN(3)]
	if m.node == nil {
		return nil
	}
	w.tell("at %s a target of %v is applied", m.name, target)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func(n *node.Node) {
		_, err := n.Apply(ctx, api.ApplyRequest{Name: "cluster.hcl", File: []byte(w.config(target))})
		done <- err
	}(m.node)
	time.Sleep(w.between(100*time.Microsecond, 2*time.Second))
	var err error
	switch w.rnd.IntN(4) {
	case 0:
		err = w.crashes(w.rnd.IntN(2) == 0)
	case 1:
		err = w.cut(w.rnd.IntN(2) == 0)
	}
	w.tell("the target of %v: %v", target, <-done) // it may be refused, or its outcome unknown
	return err
}

func (w *world) diskErrors() error {
	m, d := w.holder(), w.between(100*time.Millisecond, 10*time.Second)
	op := []blockdev.Op{blockdev.OpWrite, blockdev.OpFlush, blockdev.OpRead}[w.rnd.IntN(3)]
	w.tell("%s: every %v fails for %v", m.name, op, d)
	w.whole = false
	h := m.disk.harm(faultdev.Rule{Op: op, Err: syscall.EIO, Applied: w.rnd.IntN(2) == 0})
	time.Sleep(d)
	if h != nil {
		h.Remove()
	}
	return nil
}

// slowDisk takes long and stays within the disk's deadline.
func (w *world) slowDisk() error {
	m, by, d := w.holder(), w.between(5*time.Millisecond, 3*time.Second), w.between(time.Second, 20*time.Second)
	w.tell("%s: every operation takes %v for %v", m.name, by, d)
	w.whole = false
	h := m.disk.harm(faultdev.Rule{Delay: by})
	time.Sleep(d)
	if h != nil {
		h.Remove()
	}
	return nil
}

// crashBehindCut: two faults at once.
func (w *world) crashBehindCut() error {
	ps, gossip := w.drawCut(w.rnd.IntN(2) == 0), w.rnd.IntN(2) == 0
	w.tell("cut %v (gossip too: %t)", ps, gossip)
	heal := w.sever(ps, gossip)
	time.Sleep(w.between(time.Millisecond, 6*time.Second))
	err := w.crashes(w.rnd.IntN(2) == 0)
	time.Sleep(w.between(time.Millisecond, 6*time.Second))
	heal()
	w.tell("healed")
	return err
}

func (w *world) leaderThenPrimary() error {
	s, err := w.status(w.someone().name)
	if err != nil || s.Leader == "" || len(s.Volumes) != 1 {
		return nil
	}
	leader, primary := w.m[s.Leader], w.m[s.Volumes[0].Primary]
	w.tell("%s leads and crashes, then %s, the primary", leader.name, primary.name)
	err = leader.crash(w.rnd.IntN(2) == 0)
	time.Sleep(w.between(time.Millisecond, 2*rto))
	if primary != leader {
		err = errors.Join(err, primary.crash(w.rnd.IntN(2) == 0))
	}
	time.Sleep(w.between(time.Millisecond, 2*rto))
	err = errors.Join(err, leader.start())
	if primary != leader {
		time.Sleep(w.between(time.Millisecond, 2*rto))
		err = errors.Join(err, primary.start())
	}
	return err
}

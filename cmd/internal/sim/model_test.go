package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

const (
	volumeName = "vol"
	blocks     = 8
	chunkSize  = 2 * blockdev.BlockSize
)

var voters = []string{"alpha", "beta", "gamma"}

var (
	oneSeed  = flag.Int64("seed", -1, "run this seed alone and print its trace")
	lastSeed = flag.Int64("seeds", 0, "run seeds up to this one; 0: 2,000, or 20,000 with -long")
	firstArg = flag.Int64("from", 0, "the first seed of a range")
	focusOn  = flag.Int("focus", -1, "have every seed look at one kind of late answer")
	maxFails = flag.Int("fails", 10, "stop after so many seeds that broke a rule")
	long     = flag.Bool("long", os.Getenv("HACLUSTER_LONG") != "", "run 20,000 seeds")
)

// TestModel runs seed after seed and checks the rules of the protocol after every step.
func TestModel(t *testing.T) {
	if *oneSeed >= 0 {
		w, err := runSeed(uint64(*oneSeed), true)
		t.Logf("%s", strings.Join(w.lines, "\n"))
		t.Logf("%+v", w.counts)
		if err != nil {
			t.Fatalf("seed %d: %v", *oneSeed, err)
		}
		return
	}
	end := int64(2000)
	if *long {
		end = 20000
	}
	if *lastSeed > 0 {
		end = *lastSeed
	}
	var total counts
	failed := 0
	for seed := *firstArg; seed < end; seed++ {
		w, err := runSeed(uint64(seed), false)
		total.add(&w.counts)
		if err == nil {
			continue
		}
		failed++
		t.Errorf("seed %d: %v\nreplay: go test ./cmd/internal/sim -run TestModel -seed=%d -v", seed, err, seed)
		if failed == 1 {
			w, _ := runSeed(uint64(seed), true)
			t.Logf("the last of its trace:\n%s", strings.Join(w.lines[max(0, len(w.lines)-60):], "\n"))
		}
		if failed == *maxFails {
			t.Fatal("enough")
		}
	}
	t.Logf("%+v", total)
}

// runSeed runs one schedule. The error is the broken rule.
func runSeed(seed uint64, tracing bool) (w *world, err error) {
	w = &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), tracing: tracing}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case violation:
			err = fmt.Errorf("at %.3f ms: %s", ms(w.now), v.text)
			w.tracef("VIOLATION %s", v.text)
		default:
			err = fmt.Errorf("at %.3f ms: panic: %v\n%s", ms(w.now), v, debug.Stack())
		}
	}()
	w.build()
	trouble := int64(4*time.Second) + w.rng.Int64N(int64(14*time.Second))
	w.schedule(trouble)
	w.run(trouble, nil)
	w.settle()
	return w, nil
}

// build sets up three machines of one cluster whose volume was never formed, and its clients.
func (w *world) build() {
	w.oracle = &oracle{w: w}
	for b := range w.oracle.blocks {
		w.oracle.blocks[b].zones = []zone{{seen: true}}
	}
	w.truth.state = cluster.NewState()
	init := w.initCommand()
	for i, name := range voters {
		n := &node{w: w, index: i, name: name, data: i < 2, rate: 1 + 0.0098*(w.rng.Float64()-0.5)}
		n.raft.vote = -1
		n.raft.term = 1
		n.raft.log = []logEntry{{term: 1, id: 1, cmd: &init}}
		if n.data {
			n.disk = &disk{w: w, node: n}
		}
		w.nodes = append(w.nodes, n)
	}
	w.seq = 1
	for _, n := range w.nodes {
		n.boots()
	}
	for range 1 + w.rng.IntN(3) {
		c := &client{w: w, depth: 1 + w.rng.IntN(3), think: w.between(2*time.Millisecond, 60*time.Millisecond)}
		c.mix = [5]float64{0.35, 0.47, 0.55, 0.62}
		w.clients = append(w.clients, c)
		w.after(0, c.dial)
	}
	// One that only reads: it goes on where writes wait.
	r := &client{w: w, depth: 1, think: w.between(5*time.Millisecond, 60*time.Millisecond), mix: [5]float64{1}}
	w.clients = append(w.clients, r)
	w.after(0, r.dial)
}

func (w *world) initCommand() cluster.Command {
	i := &cluster.Init{ID: "c1", Name: "sim"}
	v := cluster.CreateVolume{Name: volumeName, ID: "v1", Size: blocks * blockdev.BlockSize, Mode: "sync"}
	for k, name := range voters {
		i.Nodes = append(i.Nodes, cluster.Node{Name: name, Witness: k == 2, DataDir: "dir-" + name})
		if k < 2 {
			v.Replicas = append(v.Replicas, cluster.Replica{Node: name, Device: "/dev/x"})
		}
	}
	i.Volumes = []cluster.CreateVolume{v}
	return cluster.Command{By: "alpha", Init: i}
}

const (
	helpAfter  = 6 * time.Second  // a person looks at a volume that does not serve for so long
	healWithin = 40 * time.Second // of virtual time, from the end of the faults to a whole cluster
)

// settle ends the faults and demands that the cluster becomes whole by itself, or with the decisions that only a person
// may take.
func (w *world) settle() {
	w.heal()
	w.becomeWhole()
	for _, c := range w.clients {
		c.quiet = true
	}
	w.run(w.now+int64(3*time.Second), nil)
	w.becomeWhole() // a message that was very late may have moved the role once more
	w.run(w.now+int64(time.Second), nil)
	a, b := w.nodes[0].disk, w.nodes[1].disk
	if a.cache != b.cache {
		w.violate("the members differ at rest: alpha %v, beta %v", a.cache, b.cache)
	}
}

func (w *world) becomeWhole() {
	start := w.now
	for at := start; !w.whole(); {
		if at >= start+int64(healWithin) {
			w.violate("the cluster is not whole %v after the last fault: %s", healWithin, w.describe())
		}
		at += int64(100 * time.Millisecond)
		w.run(at, nil)
		w.person(start)
	}
}

// whole reports whether one node serves with a lease and both replicas are members.
func (w *world) whole() bool {
	v := w.truth.state.Volumes[volumeName]
	if len(v.Members) != 2 || v.Previous != "" || len(v.Held) > 0 {
		return false
	}
	for _, n := range w.nodes[:2] {
		if p := n.proc; p == nil || n.super.failed || n.super.inconsistent {
			return false // it could not follow
		}
	}
	for _, n := range w.nodes[:2] {
		if p := n.proc; p != nil && p.replica.sess != nil && p.replica.sess.epoch == v.Epoch && p.replica.sess.valid() && !p.replica.sess.handing {
			g := p.replica.sess.core.Peer(w.nodes[1-n.index].name)
			return g.Connected && g.Member && p.replica.sess.core.DiskError() == nil
		}
	}
	return false
}

// person does what waits for a person: allows the resync of a held replica, and forces a promotion when nobody may be
// promoted without.
func (w *world) person(healed int64) {
	v := w.truth.state.Volumes[volumeName]
	for _, h := range v.Held {
		w.tell(cluster.Command{By: "person", AllowResync: &cluster.AllowResync{On: cluster.On{Volume: volumeName, Epoch: v.Epoch, Version: v.Version}, Node: h}})
	}
	if w.now-max(w.served, healed) < int64(helpAfter) || w.now-w.helped < int64(3*time.Second) {
		return
	}
	w.helped = w.now
	if !w.badDisk && w.counts.forced == 0 {
		w.violate("the volume is not served %v after the last fault, although no disk failed and nobody was forced: %s", helpAfter, w.describe())
	}
	w.counts.helped++
	if n := w.primary(); n != nil {
		n.kill("a person restarts it")
		return
	}
	best := ""
	for _, n := range w.nodes[:2] {
		if p := n.proc; p != nil && !p.replica.recv.Inconsistent() && (best == "" || v.IsMember(n.name) && (!v.IsMember(best) || v.Primary == n.name)) {
			best = n.name
		}
	}
	w.tracef("a person forces %s: %s", best, w.describe())
	w.order(failover.Order{To: best, Force: true})
}

// primary is the node that has a session, nil without one.
func (w *world) primary() *node {
	for _, n := range w.nodes[:2] {
		if p := n.proc; p != nil && p.replica.sess != nil {
			return n
		}
	}
	return nil
}

func (w *world) tell(c cluster.Command) {
	for _, n := range w.nodes {
		if p := n.proc; p != nil && p.raft.role == leading {
			p.accept(c, nil)
		}
	}
}

func (w *world) describe() string {
	v := w.truth.state.Volumes[volumeName]
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d version %d primary %s/%d members %v previous %q held %v", v.Epoch, v.Version, v.Primary, v.Process, v.Members, v.Previous, v.Held)
	for _, n := range w.nodes {
		p := n.proc
		if p == nil {
			fmt.Fprintf(&b, "; %s down, up %t starting %t storing %d", n.name, n.up, n.starting, n.storing)
			if n.data {
				fmt.Fprintf(&b, " running %d", len(n.disk.running))
			}
			continue
		}
		fmt.Fprintf(&b, "; %s/%d %s term %d role %d commit %d applied %d", n.name, p.number, n.incarnation().Boot, n.raft.term, p.raft.role, p.raft.commit, p.raft.applied)
		if r := p.replica; r != nil {
			fmt.Fprintf(&b, " report %+v busy %d outstanding %d stopping %d", r.report(), r.busy, r.recv.Outstanding(), r.stopping)
			if s := r.sess; s != nil {
				fmt.Fprintf(&b, " serving %d valid %t handing %t gaveUp %t inflight %d peer %+v", s.epoch, s.valid(), s.handing, s.gaveUp, s.core.InFlight(), s.core.Peer(s.link.peer.name))
			}
		}
	}
	return b.String()
}

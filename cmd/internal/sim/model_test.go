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
)

const (
	volumeName = "vol"
	blocks     = 10 // what a volume can become
	chunkSize  = 2 * blockdev.BlockSize
)

var (
	oneSeed  = flag.Int64("seed", -1, "run this seed alone and print its trace")
	lastSeed = flag.Int64("seeds", 0, "run seeds up to this one; 0: 2,000, or 20,000 with -long")
	firstArg = flag.Int64("from", 0, "the first seed of a range")
	focusOn  = flag.Int("focus", -1, "have every seed look at one kind of late answer")
	replicas = flag.Int("replicas", 0, "have every seed play so many; 0: each its own number")
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
		for _, n := range w.nodes {
			if p := n.proc; p != nil && p.replica != nil {
				p.replica.closeArea()
			}
		}
	}()
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

// build sets up the machines of one cluster whose volume was never formed, and its clients.
func (w *world) build() {
	w.oracle, w.shape = &oracle{w: w}, shapeOf(w.seed)
	for b := range w.oracle.blocks {
		w.oracle.blocks[b].zones = []zone{{seen: true}}
	}
	w.truth.state = cluster.NewState()
	init := w.initCommand()
	for i, name := range w.shape.names {
		n := &node{w: w, index: i, name: name, data: i < w.shape.replicas, rate: 1 + 0.0098*(w.rng.Float64()-0.5)}
		n.raft.vote = -1
		n.raft.term = 1
		n.raft.log = []logEntry{{term: 1, id: 1, cmd: &init}}
		if n.data {
			n.disk, n.undo.w, n.super.size = &disk{w: w, node: n}, w, sizeOf(firstBlocks)
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
	if w.requiresFencing() {
		i.Fencing = cluster.FencingRequired
	}
	v := cluster.CreateVolume{Name: volumeName, ID: "v1", Size: sizeOf(firstBlocks), Mode: cluster.ModeSync}
	switch w.seed % 4 {
	case 3:
		v.Mode = cluster.ModeSemisync
	case 1:
		v.Mode, w.bound = cluster.ModeAsync, w.drawBound()
	}
	var own map[string]string
	if w.shape.replicas > 2 && (w.seed%8 == 1 || *focusOn == mixed) {
		v.Mode = cluster.ModeSync
		w.bound, own = w.drawBound(), map[string]string{}
		for _, n := range w.shape.names[:w.shape.replicas] {
			own[n] = []string{"", "", cluster.ModeSemisync, cluster.ModeAsync, cluster.ModeAsync}[w.rng.IntN(5)]
		}
	}
	for k, name := range w.shape.names {
		witness := k >= w.shape.replicas
		i.Nodes = append(i.Nodes, cluster.Node{Name: name, Witness: witness, DataDir: "dir-" + name})
		if !witness {
			v.Replicas = append(v.Replicas, cluster.Replica{Node: name, Device: "/dev/x", Mode: own[name]})
		}
	}
	i.Volumes = []cluster.CreateVolume{v}
	return cluster.Command{By: "alpha", Init: i}
}

package replication

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacluster/blockdev/backend/memdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/primary"
	"hacluster/replication/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen soon; no test passes by its running out. It is shorter than the interval at which Run
// looks by itself, so that a wake-up that was lost fails a test.
const patience = 2 * time.Minute

// dropAfter is far beyond any pause of a loaded machine: what has to time out is made to by moving the lab's clock.
const dropAfter = time.Minute

const volumeSize = 8 << 20

// lab is a cluster in one process: replicas over real connections, and a sequencer in the place of Raft.
type lab struct {
	t     testing.TB
	conf  labConfig
	nodes map[string]*labNode
	clock atomic.Int64 // added to the machine's
	base  time.Time
	line  *link.Line // that all streams share; a test may limit it

	mu       sync.Mutex
	state    *cluster.State
	index    uint64
	log      []cluster.Command // applied or void, in order
	decision func(cluster.Command) error
	watch    func(c cluster.Command, before, now *cluster.Volume) // sees what was applied before any node does; under mu
}

type labConfig struct {
	size     int64
	inline   bool
	workers  int
	suspend  time.Duration
	deadline time.Duration
	tmpfs    bool          // backings are files; without faults, and read by nobody else
	unmarked bool          // nothing is marked on stable storage
	undo     bool          // there are undo areas
	rescue   bool          // and rescue images
	kernel   bool          // backings lose what a failed flush was to make durable
	files    string        // where superblocks are real ones, in files; empty: they are in memory
	mode     string        // default sync
	bound    primary.Bound // in async
	spool    SpoolConfig
}

func newLab(t testing.TB, conf labConfig, names ...string) *lab {
	t.Helper()
	if conf.size == 0 {
		conf.size = volumeSize
	}
	if conf.deadline == 0 {
		conf.deadline = time.Hour
	}
	if conf.suspend == 0 {
		conf.suspend = time.Hour
	}
	if conf.mode == "" {
		conf.mode = cluster.ModeSync
	}
	l := &lab{t: t, conf: conf, nodes: map[string]*labNode{}, state: cluster.NewState(), base: time.Now(), line: link.NewLine()}
	create := cluster.CreateVolume{Name: "v", ID: fmt.Sprintf("%032x", 7), Size: conf.size, Mode: conf.mode}
	init := cluster.Init{ID: fmt.Sprintf("%032x", 1), Name: "lab"}
	for _, n := range names {
		init.Nodes = append(init.Nodes, cluster.Node{Name: n, DataDir: n})
		create.Replicas = append(create.Replicas, cluster.Replica{Node: n, Device: "/dev/" + n})
	}
	init.Volumes = append(init.Volumes, create)
	l.apply(cluster.Command{Init: &init})
	for i, n := range names {
		node := &labNode{l: l, name: n, mem: memdev.New(memdev.Config{Size: conf.size}), sb: &superRecord{}, boot: wire.ID{byte(i + 1)}}
		node.cable.init()
		l.nodes[n] = node
		node.listen()
	}
	for _, n := range names {
		l.nodes[n].start()
	}
	t.Cleanup(l.close)
	return l
}

// formed is a lab whose first node is primary of all the others, with a lease.
func formed(t testing.TB, conf labConfig, names ...string) *lab {
	t.Helper()
	l := newLab(t, conf, names...)
	l.form(names...)
	l.promote(names[0], cluster.BasisFirst)
	l.nodes[names[0]].grant()
	l.nodes[names[0]].serving()
	return l
}

func (l *lab) close() {
	for _, n := range l.nodes {
		n.cable.mend()
		n.faults.Clear()
		n.undo.clear()
		if n.tableFaults != nil {
			n.tableFaults.Clear()
		}
	}
	for _, n := range l.nodes {
		if err := n.halt(); err != nil && !errors.Is(err, errFault) {
			l.t.Errorf("stop of %s: %v", n.name, err)
		}
	}
}

func (l *lab) now() cluster.Instant {
	return cluster.Instant(time.Hour + time.Since(l.base) + time.Duration(l.clock.Load()))
}

// pass moves the clock and lets every primary look at it.
func (l *lab) pass(d time.Duration) {
	l.clock.Add(int64(d))
	for _, n := range l.nodes {
		if t := n.get().Tenure(); t != nil {
			t.with(t.coreTick)
			t.look()
		}
	}
}

// apply commits a command and shows it to every node.
func (l *lab) apply(c cluster.Command) cluster.Result {
	l.mu.Lock()
	l.index++
	before := l.state.Volumes["v"].Clone()
	res := l.state.Apply(l.index, 1, c)
	l.log = append(l.log, c)
	v, ok := l.state.Volumes["v"]
	v = v.Clone()
	if l.watch != nil && res.Void == "" {
		l.watch(c, &before, &v)
	}
	l.mu.Unlock()
	if ok {
		for _, n := range l.nodes {
			if r := n.get(); r != nil {
				r.Applied(v)
			}
		}
	}
	return res
}

func (l *lab) must(c cluster.Command) {
	l.t.Helper()
	if res := l.apply(c); res.Void != "" {
		l.t.Fatalf("void: %s", res.Void)
	}
}

// mustOn commits what is made for the present record. A node may have something committed in between, as a new process does
// that stays a member: then it is made again.
func (l *lab) mustOn(command func(cluster.On) cluster.Command) {
	l.t.Helper()
	for range 100 {
		on := l.on()
		res := l.apply(command(on))
		if res.Void == "" {
			return
		}
		if l.on() == on {
			l.t.Fatalf("void: %s", res.Void)
		}
	}
	l.t.Fatal("the record never stands still")
}

func (l *lab) volume() *cluster.Volume {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.state.Volumes["v"]
	v = v.Clone()
	return &v
}

// consent is a person's word that what a replica has of its own may be lost.
func (l *lab) consent(name string) {
	l.t.Helper()
	l.mustOn(func(on cluster.On) cluster.Command {
		return cluster.Command{AllowResync: &cluster.AllowResync{On: on, Node: name}}
	})
}

func (l *lab) on() cluster.On {
	v := l.volume()
	return cluster.On{Volume: "v", Epoch: v.Epoch, Version: v.Version}
}

func (l *lab) form(names ...string) {
	l.t.Helper()
	m := map[string]cluster.Member{}
	for _, n := range names {
		m[n] = l.nodes[n].member()
	}
	l.must(cluster.Command{Form: &cluster.Form{On: l.on(), Members: m}})
}

func (l *lab) promote(name string, basis cluster.Basis, leave ...string) {
	l.t.Helper()
	l.mustOn(func(on cluster.On) cluster.Command {
		return cluster.Command{Promote: &cluster.Promote{On: on, Term: 1, Candidate: name, Member: l.nodes[name].member(), Basis: basis, Leave: leave}}
	})
}

// commands counts what was proposed, by kind.
func (l *lab) commands(match func(cluster.Command) bool) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.log {
		if match(c) {
			n++
		}
	}
	return n
}

func (l *lab) drops() int { return l.commands(func(c cluster.Command) bool { return c.Drop != nil }) }

// decide lets a test answer proposals: an error keeps a command from being applied.
func (l *lab) decide(f func(cluster.Command) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.decision = f
}

func (l *lab) propose(n *labNode, c cluster.Command) (cluster.Result, error) {
	c.By = n.name
	l.mu.Lock()
	f := l.decision
	l.mu.Unlock()
	if f != nil {
		if err := f(c); err != nil {
			return cluster.Result{}, err
		}
	}
	return l.apply(c), nil
}

// logger writes to the test's log when asked to.
func logger(t testing.TB, node string) *slog.Logger {
	if os.Getenv("LAB_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", node)
}

// seeds is how many of n random schedules run. Under the race detector, where each takes several times as long, it is a
// third of them: make test-long runs all (HACLUSTER_LONG), and so does a run without the detector.
func seeds(n uint64) uint64 {
	if raceEnabled && os.Getenv("HACLUSTER_LONG") == "" {
		return max(min(n, 2), n/3)
	}
	return n
}

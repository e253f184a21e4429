package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/backend/timed"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/rescue"
	"hacluster/blockdev/undo"
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

	mu       sync.Mutex
	state    *cluster.State
	index    uint64
	log      []cluster.Command // applied or void, in order
	decision func(cluster.Command) error
}

type labConfig struct {
	size     int64
	inline   bool
	workers  int
	suspend  time.Duration
	deadline time.Duration
	tmpfs    bool   // backings are files; without faults, and read by nobody else
	unmarked bool   // nothing is marked on stable storage
	undo     bool   // there are undo areas
	rescue   bool   // and rescue images
	kernel   bool   // backings lose what a failed flush was to make durable
	files    string // where superblocks are real ones, in files; empty: they are in memory
}

// labNode is one node: it outlives its processes.
type labNode struct {
	l       *lab
	name    string
	addr    string
	mem     *memdev.Dev
	disk    *kernelDisk
	faults  *faultdev.Dev
	sb      *superRecord
	table   *memdev.Dev // of marks
	undo    labUndo
	rescue  labRescue
	cable   cable
	process uint64
	boot    wire.ID
	dark    atomic.Bool // its power is off: what still runs of it reaches nobody

	leaseMu sync.Mutex
	granted bool // it may serve what it leads
	gaveUp  cluster.Epoch

	mu          sync.Mutex
	replica     *Replica
	super       *memSuper
	sbFile      *fileSuper // with labConfig.files
	dev         *timed.Dev
	stop        context.CancelFunc
	done        chan error
	tally       tally
	marks       *marks.File
	tableFaults *faultdev.Dev
	area        *undo.Area
	shelf       *rescue.Shelf
	handler     func(context.Context, *link.Session) error // in the place of the replica
	giveUps     []string
	events      []string

	// What a test has the leader answer to a give-up; nil: the promotion of another member.
	onGiveUp func(to string, failed bool) error
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
	l := &lab{t: t, conf: conf, nodes: map[string]*labNode{}, state: cluster.NewState(), base: time.Now()}
	create := cluster.CreateVolume{Name: "v", ID: fmt.Sprintf("%032x", 7), Size: conf.size, Mode: "sync"}
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
	res := l.state.Apply(l.index, 1, c)
	l.log = append(l.log, c)
	v, ok := l.state.Volumes["v"]
	v = v.Clone()
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

// --- a node ---

func (n *labNode) incarnation() cluster.Incarnation {
	return cluster.Incarnation{Boot: fmt.Sprintf("%x", n.boot[:]), Attachment: "1"}
}

func (n *labNode) member() cluster.Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cluster.Member{Incarnation: n.incarnation(), Process: n.process}
}

func (n *labNode) get() *Replica {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.replica
}

// start begins a new process on what the last one left.
func (n *labNode) start() {
	n.process++
	n.l.apply(cluster.Command{StartNode: &cluster.StartNode{Node: n.name, DataDir: n.name, Start: n.process, Boot: fmt.Sprintf("%x", n.boot[:])}})
	n.mem = n.mem.Reopen()
	inner := blockdev.Device(tallied{n.mem, &n.tally})
	if n.l.conf.kernel {
		if n.disk == nil {
			n.disk = newKernelDisk(n.l.conf.size)
		}
		inner = n.disk.open(n.mem)
	}
	faults := faultdev.New(inner)
	if n.l.conf.tmpfs {
		faults = faultdev.New(tmpfs(n.l.t, n.l.conf.size))
	}
	var r *Replica
	dev := timed.New(faults, timed.Config{Deadline: n.l.conf.deadline, OnStall: func(op blockdev.Op, at blockdev.Range, since time.Duration) {
		n.get().Stalled(op, at, since)
	}})
	super := &memSuper{rec: n.sb}
	sb := Superblock(super)
	if n.l.conf.files != "" {
		n.sbFile = n.openSuper()
		sb = n.sbFile
	}
	table := n.openMarks()
	area := n.openUndo(dev, sb)
	shelf := n.openRescue(dev, sb)
	id := wire.ID{15: 7}
	r = New(Config{Node: n.name, ClusterID: wire.ID{15: 1}, VolumeID: id, Volume: *n.l.volume(), Process: n.process, Boot: n.boot,
		Incarnation: n.incarnation(), Inline: n.l.conf.inline, Marks: table, Undo: area, Rescue: shelf, DropAfter: dropAfter, SuspendLimit: n.l.conf.suspend, Workers: n.l.conf.workers,
		Log: logger(n.l.t, n.name)}, labNodeView{n}, dev, sb)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	n.mu.Lock()
	n.replica, n.super, n.marks, n.area, n.shelf, n.dev, n.faults, n.stop, n.done = r, super, table, area, shelf, dev, faults, cancel, done
	n.mu.Unlock()
	go func() { done <- r.Run(ctx) }()
}

// halt stops the process in order, as far as its disk lets it.
func (n *labNode) halt() error {
	n.stop()
	err := <-n.done
	n.done <- nil // halting again is harmless
	n.faults.Clear()
	n.undo.clear()
	if n.area != nil {
		_ = n.area.Close()
	}
	if n.shelf != nil {
		_ = n.shelf.Stop()
	}
	if cerr := n.dev.Close(); cerr != nil && !errors.Is(cerr, blockdev.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return errors.Join(err, n.closeMarks())
}

// crash ends the process as kill -9 does: what the operating system has stays, nothing more reaches it.
func (n *labNode) crash() {
	n.cable.cut()
	n.super.kill()
	_ = n.mem.Close()
	n.undo.kill()
	n.rescue.kill()
	n.faults.Clear() // what hangs finds the device gone
	n.undo.clear()
	if n.table != nil {
		_ = n.table.Close()
	}
	_ = n.halt()
	n.cable.mend()
}

func (n *labNode) listen() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.l.t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	srv := link.NewServer(n, logger(n.l.t, n.name))
	var goes sync.WaitGroup
	goes.Go(func() { _ = srv.Serve(ln) })
	n.l.t.Cleanup(func() {
		_ = ln.Close()
		srv.Close()
		goes.Wait()
	})
}

// Replicate implements link.Handler.
func (n *labNode) Replicate(ctx context.Context, s *link.Session) error {
	n.mu.Lock()
	h := n.handler
	n.mu.Unlock()
	if h != nil {
		return h(ctx, s)
	}
	return n.get().Replicate(ctx, s)
}

func (n *labNode) impersonate(h func(context.Context, *link.Session) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handler = h
}

// dial opens a stream from n to another node; both cables can break it.
func (n *labNode) dial(ctx context.Context, to *labNode, h wire.Hello) (*link.Sender, wire.HelloReply, error) {
	c, err := to.cable.dial(ctx, to.addr, &n.cable)
	if err != nil {
		return nil, wire.HelloReply{}, err
	}
	return link.Dial(ctx, c, h)
}

// grant gives the node a lease on what it leads.
func (n *labNode) grant() { n.setLease(true) }

// expire ends it.
func (n *labNode) expire() { n.setLease(false) }

func (n *labNode) setLease(granted bool) {
	n.leaseMu.Lock()
	n.granted = granted
	if granted {
		n.gaveUp = 0
	}
	n.leaseMu.Unlock()
	n.get().LeaseChanged()
}

// serving waits until the node's tenure is there and connected to every other node that runs.
func (n *labNode) serving() *Tenure {
	n.l.t.Helper()
	var t *Tenure
	n.l.await(n.name+" to serve", func() bool {
		t = n.get().Tenure()
		return t != nil && t.gate.try()
	})
	return t
}

// peer is how it stands with another node, as n sees it.
func (n *labNode) peer(name string) primary.Progress {
	s, _ := n.get().Serving()
	for _, p := range s.Peers {
		if p.Node == name {
			return p.Progress
		}
	}
	return primary.Progress{}
}

func (n *labNode) connected(to string) {
	n.l.t.Helper()
	n.l.await(n.name+" to have a stream to "+to, func() bool { return n.peer(to).Connected })
}

func (l *lab) await(what string, cond func() bool) {
	l.t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			l.t.Fatalf("waited %v for %s; volume %+v", patience, what, l.volume())
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// awaitPassing awaits cond, and lets the lab's time go by in steps, each when a tenth of a second has changed nothing. Real
// standbys answer in real time: a clock that outruns them drops who is well. So it stands still while one of them is to
// answer, and goes on without one that has not after ten seconds. A step of dropAfter or more is for who wants drops.
func (l *lab) awaitPassing(what string, step time.Duration, cond func() bool) {
	l.t.Helper()
	next := time.Now()
	l.await(what, func() bool {
		if cond() {
			return true
		}
		if now := time.Now(); now.After(next) && (step >= dropAfter || l.answered() || now.After(next.Add(10*time.Second))) {
			l.pass(step)
			next = now.Add(100 * time.Millisecond)
		}
		return false
	})
}

// passAnswered lets a step of the lab's time go by when nobody is to answer.
func (l *lab) passAnswered(step time.Duration) {
	l.t.Helper()
	l.await("an answer", l.answered)
	l.pass(step)
}

// answered reports whether no standby that is connected has been silent for so long that it was sent a ping, and none is asked
// in a round of clearing.
func (l *lab) answered() bool {
	for _, n := range l.nodes {
		if t := n.get().Tenure(); t != nil && !t.answered() {
			return false
		}
	}
	return true
}

func (t *Tenure) answered() bool {
	now := t.r.node.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range t.core.Peers() {
		if t.core.Peer(name).Connected && t.core.Silence(now, name) >= dropAfter/3 {
			return false
		}
	}
	return t.clearing == nil
}

// labNodeView is a labNode as its replica sees it.
type labNodeView struct{ n *labNode }

var _ Node = labNodeView{}

func (v labNodeView) Now() cluster.Instant { return v.n.l.now() }

// Heard: who has a lease hears the leader all the time, else nobody has said when.
func (v labNodeView) Heard() cluster.Instant {
	v.n.leaseMu.Lock()
	defer v.n.leaseMu.Unlock()
	if !v.n.granted {
		return 0
	}
	return v.n.l.now()
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
	return n.l.handOn(n, to, failed)
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
		l.nodes[m].grant()
		if res := l.apply(cluster.Command{Promote: p}); res.Void != "" {
			return errors.New(res.Void)
		}
		return nil
	}
	return errors.New("no member to take it")
}

func (v labNodeView) Greet(ctx context.Context, peer string, h wire.Hello) (*link.Sender, wire.HelloReply, error) {
	return v.n.dial(ctx, v.n.l.nodes[peer], h)
}

func (v labNodeView) Left(string) (cluster.Epoch, int64) { return labPoint.Epoch, labPoint.AtMillis }

func (v labNodeView) Serving(string, cluster.Epoch)  {}
func (v labNodeView) FirstAck(string, cluster.Epoch) {}

func (v labNodeView) Event(_, kind, _ string) {
	v.n.mu.Lock()
	defer v.n.mu.Unlock()
	v.n.events = append(v.n.events, kind)
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

package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

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

// labNode is one node: it outlives its processes.
type labNode struct {
	l       *lab
	name    string
	addr    string
	relay   labRelay
	mem     *memdev.Dev
	disk    *kernelDisk
	faults  *faultdev.Dev
	sb      *superRecord
	table   *memdev.Dev // of marks
	undo    labUndo
	rescue  labRescue
	cable   cable
	process uint64
	stamp   uint32 // of its replica, when it was started
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
	events      []string // their kinds
	texts       []string

	// What a test has the leader answer to a give-up; nil: the promotion of another member.
	onGiveUp func(to string, failed bool) error
}

func (n *labNode) incarnation() cluster.Incarnation {
	return cluster.Incarnation{Boot: fmt.Sprintf("%x", n.boot[:]), Attachment: "1"}.Of(n.stamp)
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
	n.stamp = n.l.volume().Stamp(n.name)
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
		Incarnation: n.incarnation(), Inline: n.l.conf.inline, Marks: table, Undo: area, Rescue: shelf, DropAfter: dropAfter, SuspendLimit: n.l.conf.suspend, Workers: n.l.conf.workers, Bound: n.l.conf.bound, Spool: n.l.conf.spool,
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
	n.listenRelay()
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
	return link.DialOn(ctx, c, h, n.l.line)
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

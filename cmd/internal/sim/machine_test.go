package sim

import (
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// node is one machine with what survives its processes and, of that, what survives its power.
type node struct {
	w     *world
	index int
	name  string
	data  bool // it holds a replica

	up   bool
	boot int     // counts the boots; changes the boot id
	rate float64 // of its clock against true time
	base int64   // what its clock shows at true time 0

	disk  *disk
	super super
	undo  undoPlace
	kept  []image // rescue images, oldest first
	// keptSince is the ledger beside them: it is noted with the image here, before its label there.
	keptSince cluster.Epoch
	hold      hold        // the oracle's
	point     interrupted // likewise
	storing   int         // changes of the superblock in the kernel
	start     uint64      // of the newest process, on disk under the directory's lock
	raft      raftDisk

	proc     *proc // the newest process, nil while none runs
	starting bool
}

// super is the superblock of a replica: it changes as a whole or not at all.
type super struct {
	epoch        cluster.Epoch
	size         int64
	resized      uint64
	used         bool // no longer fresh
	inconsistent bool
	failed       bool
	clean        *cluster.Clean
	number       uint32 // of the replica (cluster.Volume.Stamp)
}

func (n *node) incarnation() cluster.Incarnation {
	return cluster.Incarnation{Boot: fmt.Sprintf("%s-boot%d", n.name, n.boot), Attachment: "a1"}.Of(n.super.number)
}

// proc is one process of haclusterd.
type proc struct {
	w           *world
	node        *node
	number      uint64 // start number
	dead        bool
	pausedUntil int64

	raft    raft
	state   *cluster.State
	leader  *leader
	holder  *cluster.Holder
	replica *replica
	room    room
}

// room is what a process may hold of writes that were acknowledged early, in every other semisync run and some in async nearly nothing.
type room struct {
	w    *world
	used int64
}

func (r *room) Take(bytes int64) bool {
	if (r.w.seed%8 == 3 || r.w.seed%16 == 5) && r.used+bytes > 4*blockdev.BlockSize {
		return false
	}
	r.used += bytes
	return true
}

func (r *room) Back(bytes int64, must bool) bool {
	if must {
		r.used += bytes
		return true
	}
	return r.Take(bytes)
}

func (r *room) Returned(bytes int64) { r.Give(bytes) }

func (r *room) Tight() bool { return false }

func (r *room) Give(bytes int64) {
	if r.used -= bytes; r.used < 0 {
		r.w.violate("R28: %d bytes were given back that nobody had", -r.used)
	}
}

// now is what CLOCK_BOOTTIME shows.
func (p *proc) now() cluster.Instant {
	return cluster.Instant(float64(p.w.now)*p.node.rate) + cluster.Instant(p.node.base)
}

// boots brings the machine up and starts the daemon.
func (n *node) boots() {
	if n.up {
		return
	}
	n.up = true
	n.boot++
	n.base = int64(time.Second) + n.w.rng.Int64N(int64(time.Hour))
	n.startProc()
}

// startProc starts the daemon. It opens the backing only when the kernel has ended what an older process left there.
func (n *node) startProc() {
	if !n.up || n.proc != nil || n.starting {
		return
	}
	n.starting = true
	boot := n.boot
	var try func()
	try = func() {
		if n.boot != boot {
			return
		}
		if n.data && (len(n.disk.running) > 0 || n.storing > 0) {
			n.w.after(2*time.Millisecond, try)
			return
		}
		n.starting = false
		n.start++
		p := &proc{w: n.w, node: n, number: n.start, state: cluster.NewState(), room: room{w: n.w}}
		n.proc = p
		n.w.tracef("START %s process %d boot %d super %+v", n.name, p.number, n.boot, n.super)
		p.raft.p = p
		p.raft.begin()
		p.holder = cluster.NewHolder(n.name, p.number)
		p.askLoop()
		if n.data {
			p.replica = newReplica(p)
			p.replica.tick()
		}
		p.register()
	}
	n.w.after(n.w.between(5*time.Millisecond, 100*time.Millisecond), try)
}

// kill ends the process at once. What it gave to the kernel goes on.
func (n *node) kill(why string) {
	if n.proc == nil {
		return
	}
	p := n.proc
	n.w.tracef("END %s process %d: %s", n.name, p.number, why)
	p.dead = true
	n.proc = nil
	if n.data && (len(n.disk.unseen) > 0 || p.replica.noting > 0) {
		n.super.failed = true // the same hole: it dies between the error and the note
		n.disk.unseen = n.disk.unseen[:0]
	}
	if p.replica != nil {
		p.replica.die()
	}
}

// crash cuts the machine's power.
func (n *node) crash() {
	n.kill("power lost")
	n.up = false
	n.starting = false
	n.boot++ // nothing of this boot happens any more
	n.storing = 0
	if n.data {
		n.disk.powerLoss()
		n.undo.powerLoss()
		n.w.tracef("POWER LOST on %s, durable %v", n.name, n.disk.durable)
	}
}

// register has the cluster know the new process.
func (p *proc) register() {
	if n := p.state.Nodes[p.node.name]; n.Start < p.number {
		c := cluster.Command{By: p.node.name, StartNode: &cluster.StartNode{Node: p.node.name, DataDir: "dir-" + p.node.name, Start: p.number, Boot: p.node.incarnation().Boot}}
		p.propose(c, nil)
		p.after(p.w.between(80*time.Millisecond, 150*time.Millisecond), p.register)
	}
}

// Package replication carries a volume's writes to every replica that must have them. A Replica is one node's copy of
// one volume: primary or standby as the committed state says. All decisions are made by the pure packages role,
// primary, standby, order and resync; here are the goroutines, the disk and the streams that carry them out.
//
// The path of a write on the primary, in the order of the files: write.go admits it (Tenure.Submit), local.go puts it
// on the local backing, peer.go sends it and takes the acknowledgements, tenure.go completes it. On a standby,
// receive.go takes the stream in and apply.go puts it on the backing. gate.go holds replies back without a lease (R11).
//
// What it refuses: to serve without being the process that a promotion named, to take a stream that is not the newest
// of the newest epoch, to write what fails its checksum. The node package is its caller.
package replication

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/order"
	"hacluster/replication/role"
	"hacluster/replication/standby"
	"hacluster/replication/wire"
)

// Node is what a Replica needs of the node that it lives on. All methods may be called concurrently.
type Node interface {
	// Now is CLOCK_BOOTTIME.
	Now() cluster.Instant
	// Lease is until when this process may serve the volume in the epoch; in the past when it may not.
	Lease(volume string, e cluster.Epoch) cluster.Instant
	// Propose hands a command to the Raft leader. A nil error means that the result is the leader's word; any error,
	// that the outcome is unknown (R27).
	Propose(ctx context.Context, c cluster.Command) (cluster.Result, error)
	// GiveUp ends the lease on the volume at once and tells the leader (R30).
	GiveUp(ctx context.Context, volume string, e cluster.Epoch, to string, failed bool) error
	// Greet opens a stream to a peer.
	Greet(ctx context.Context, peer string, h wire.Hello) (*link.Sender, wire.HelloReply, error)
	// Serving tells that the volume accepts I/O in this epoch, FirstAck that a client got its first acknowledgement.
	Serving(volume string, e cluster.Epoch)
	FirstAck(volume string, e cluster.Epoch)
}

// Superblock is the replica's own record on stable storage. Each setter returns when the change is durable.
type Superblock interface {
	Epoch() cluster.Epoch
	SetEpoch(cluster.Epoch) error
	Inconsistent() bool
	Failed() bool
	// SetHealth stores both marks in one update.
	SetHealth(inconsistent, failed bool) error
	// Clean is the clean-stop mark, nil without.
	Clean() *cluster.Clean
	SetClean(*cluster.Clean) error
}

// Backing is the local device, watched for stalls (R26).
type Backing interface {
	blockdev.Device
	blockdev.VectorWriter
	blockdev.Mapper
	Stalled() bool
}

// Config is what a Replica is made with.
type Config struct {
	Node        string
	ClusterID   wire.ID
	VolumeID    wire.ID
	Volume      cluster.Volume
	Process     uint64
	Boot        wire.ID // kernel boot id
	Incarnation cluster.Incarnation
	Fresh       bool // the backing was absent or wholly sparse and the volume has never been formed
	// Inline: the backing takes a write without waiting for a disk, so the goroutine that has the data writes it.
	Inline bool
	// DropAfter: a member that does not answer for so long is dropped. Default 500 ms.
	DropAfter time.Duration
	// SuspendLimit: without a lease for longer, the clients' connections are closed. Default 60 s.
	SuspendLimit time.Duration
	// Workers bounds the disk operations of the volume that run at a time beside inline ones. Default 64.
	Workers int
	// Problem, when not empty, says why the backing or its superblock cannot be used; then both are nil.
	Problem string
	Log     *slog.Logger
}

// Replica is one node's copy of one volume.
type Replica struct {
	cfg   Config
	node  Node
	dev   Backing
	super Superblock
	log   *slog.Logger
	work  *workers
	kick  chan struct{} // to Run: facts have changed; room for one: a reminder, not a count

	mu        sync.Mutex     // taken before the mutex of a Tenure where both are held
	vol       cluster.Volume // the newest record: applied here, or the leader's word
	applied   cluster.Volume // as our own log shows it
	recv      *standby.Receiver
	queue     order.Queue   // entries taken from a primary and not returned
	tenure    *Tenure       // while primary
	draining  int           // local operations of ended tenures that have not returned
	session   *session      // the stream that is being received, nil: none
	problem   string        // why the replica must not be used any more
	proposing bool          // a proposal of the role is on its way
	changed   chan struct{} // closed and replaced when outstanding work or the record changed
}

// New makes a Replica that owns dev and super; it does nothing before Run.
func New(cfg Config, node Node, dev Backing, super Superblock) *Replica {
	if cfg.DropAfter == 0 {
		cfg.DropAfter = 500 * time.Millisecond
	}
	if cfg.SuspendLimit == 0 {
		cfg.SuspendLimit = time.Minute
	}
	if cfg.Workers == 0 {
		cfg.Workers = 64
	}
	r := &Replica{cfg: cfg, node: node, dev: dev, super: super, vol: cfg.Volume, applied: cfg.Volume, problem: cfg.Problem,
		log: cfg.Log.With("volume", cfg.Volume.Name), kick: make(chan struct{}, 1), changed: make(chan struct{}),
		work: newWorkers(cfg.Workers)}
	if super != nil {
		r.recv = standby.New(super.Epoch(), super.Inconsistent())
	} else {
		r.recv = standby.New(0, false)
	}
	return r
}

// Run follows the committed state until ctx ends. Then it stops serving, waits for everything on the device, flushes
// and leaves the clean-stop mark.
func (r *Replica) Run(ctx context.Context) error {
	retry := time.NewTicker(r.cfg.DropAfter / 2) // proposals of unknown outcome, leases that came
	defer retry.Stop()
	for {
		r.follow(ctx)
		select {
		case <-ctx.Done():
			return r.shutdown()
		case <-r.kick:
		case <-retry.C:
		}
	}
}

func (r *Replica) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Applied takes the volume's record as our own Raft log shows it.
func (r *Replica) Applied(v cluster.Volume) {
	r.mu.Lock()
	if newer(v, r.applied) {
		r.applied = v
	}
	r.mu.Unlock()
	r.learn(v)
}

// learn takes a record that is committed: from our log, or by the leader's word.
func (r *Replica) learn(v cluster.Volume) {
	r.mu.Lock()
	if !newer(v, r.vol) {
		r.mu.Unlock()
		return
	}
	r.vol = v
	r.recv.Fence(v.Epoch)
	if s := r.session; s != nil && s.epoch < v.Epoch {
		s.link.Close()
	}
	t := r.tenure
	r.changeLocked()
	r.mu.Unlock()
	if t != nil {
		t.set(v)
	}
	r.wake()
}

func newer(a, b cluster.Volume) bool {
	return a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Version > b.Version
}

func (r *Replica) changeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// follow does what the role asks for until it asks for nothing more.
func (r *Replica) follow(ctx context.Context) {
	for ctx.Err() == nil {
		f := r.facts()
		switch a := role.Next(f).(type) {
		case nil:
			return
		case role.Stop:
			r.stopServing(a.Why)
		case role.StoreEpoch:
			if !r.storeEpoch(a.Epoch) {
				return
			}
		case role.Propose:
			r.propose(ctx, a.Command)
			return // the outcome kicks
		case role.GiveUp:
			r.handOn(ctx, a)
			return
		case role.Serve:
			if !r.serve(ctx, a.Epoch) {
				return
			}
		}
	}
}

func (r *Replica) facts() role.Facts {
	rep := r.Report()
	r.mu.Lock()
	defer r.mu.Unlock()
	f := role.Facts{Self: r.cfg.Node, Volume: r.vol, Report: rep, Busy: r.draining + r.recv.Outstanding()}
	f.Lease = r.node.Now() < r.node.Lease(r.vol.Name, r.vol.Epoch)
	if r.tenure != nil {
		f.Serving = r.tenure.epoch
	}
	return f
}

// Report is the replica's own word about itself.
func (r *Replica) Report() cluster.Report {
	rep := cluster.Report{Volume: r.cfg.Volume.Name, Incarnation: r.cfg.Incarnation, Process: r.cfg.Process}
	if r.super != nil {
		rep.Held, rep.Failed, rep.Clean = true, r.super.Failed(), r.super.Clean()
		rep.Stalled = r.dev.Stalled()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rep.Epoch, rep.LastSeq, rep.Inconsistent = r.recv.Epoch(), r.recv.LastNum(), r.recv.Inconsistent()
	rep.Problem = r.problem
	rep.Fresh = r.cfg.Fresh && r.vol.Epoch == 0
	return rep
}

// storeEpoch puts the epoch on stable storage and only then lets the receiver answer in it (R2).
func (r *Replica) storeEpoch(e cluster.Epoch) bool {
	if err := r.super.SetEpoch(e); err != nil {
		r.unusable(fmt.Sprintf("epoch %d cannot be stored: %v", e, err))
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recv.Stored(e)
	return true
}

// unusable takes the replica out of service until a person acts: what it would have to note cannot be noted.
func (r *Replica) unusable(why string) {
	r.mu.Lock()
	first := r.problem == ""
	if first {
		r.problem = why
	}
	r.mu.Unlock()
	if first {
		r.log.Error("replica is out of service until a person acts", "why", why)
	}
}

// propose hands a role's command over, one at a time; the ticker of Run repeats it when the outcome stays unknown.
func (r *Replica) propose(ctx context.Context, c cluster.Command) {
	r.mu.Lock()
	busy := r.proposing
	r.proposing = true
	r.mu.Unlock()
	if busy {
		return
	}
	r.work.goes.Go(func() {
		res, err := r.node.Propose(ctx, c)
		r.mu.Lock()
		r.proposing = false
		r.mu.Unlock()
		if err == nil && res.Volume != nil {
			r.learn(*res.Volume)
		}
	})
}

// handOn gives up a role that this replica cannot fill any more; the ticker of Run repeats it.
func (r *Replica) handOn(ctx context.Context, a role.GiveUp) {
	r.mu.Lock()
	busy := r.proposing
	r.proposing = true
	r.mu.Unlock()
	if busy {
		return
	}
	r.log.Error("giving the role up", "epoch", a.Epoch, "why", a.Why)
	r.work.goes.Go(func() {
		if err := r.node.GiveUp(ctx, r.cfg.Volume.Name, a.Epoch, "", true); err != nil {
			r.log.Warn("the leader did not take the give-up", "epoch", a.Epoch, "error", err)
		}
		r.mu.Lock()
		r.proposing = false
		r.mu.Unlock()
	})
}

// diskFailed notes a failed write or flush durably, before any further answer (R23).
func (r *Replica) diskFailed(err error) {
	if r.super.Failed() {
		return
	}
	r.log.Error("the backing device failed: the replica is no candidate until it has been resynced", "error", err)
	if err := r.super.SetHealth(r.super.Inconsistent(), true); err != nil {
		r.unusable(fmt.Sprintf("a failed write cannot be noted: %v", err))
	}
}

// Stalled is to be called by whoever watches the backing (R26): a stall counts as an error.
func (r *Replica) Stalled(op blockdev.Op, at blockdev.Range, since time.Duration) {
	err := fmt.Errorf("%v of %v outstanding for %v: %w", op, at, since.Round(time.Millisecond), blockdev.ErrStalled)
	r.mu.Lock()
	t, s := r.tenure, r.session
	r.mu.Unlock()
	r.work.goes.Go(func() {
		r.diskFailed(err)
		if t != nil {
			t.diskFailed(err)
		}
		if s != nil {
			s.fail(wire.Stalled, err)
		}
	})
}

// Tenure is the current tenure as primary, nil while this node is none.
func (r *Replica) Tenure() *Tenure {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tenure
}

// Volume is the newest record known.
func (r *Replica) Volume() cluster.Volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.vol
}

// stopServing ends the tenure, if there is one. What it has on the device is counted as draining in the same moment:
// no epoch is stored and no stream answered before that has returned (R2).
func (r *Replica) stopServing(why string) {
	r.mu.Lock()
	t := r.tenure
	if t == nil {
		r.mu.Unlock()
		return
	}
	r.tenure = nil
	r.draining += t.cut()
	r.changeLocked()
	r.mu.Unlock()
	r.log.Info("no longer primary", "epoch", t.epoch, "why", why)
	t.end()
}

// serve begins a tenure. A clean-stop mark is removed before the first write can come.
func (r *Replica) serve(ctx context.Context, e cluster.Epoch) bool {
	if err := r.super.SetClean(nil); err != nil {
		r.unusable(fmt.Sprintf("the clean-stop mark cannot be removed: %v", err))
		return false
	}
	if r.super.Failed() { // promoted by a person's word all the same
		if err := r.super.SetHealth(r.super.Inconsistent(), false); err != nil {
			r.unusable(fmt.Sprintf("the mark of the failed disk cannot be removed: %v", err))
			return false
		}
	}
	r.mu.Lock()
	if r.vol.Epoch != e || r.problem != "" {
		ok := r.problem == ""
		r.mu.Unlock()
		return ok
	}
	t := newTenure(r, r.vol)
	r.tenure = t
	r.mu.Unlock()
	r.log.Info("primary", "epoch", e, "members", t.members())
	t.start(context.WithoutCancel(ctx))
	r.node.Serving(r.cfg.Volume.Name, e)
	return true
}

// returned counts a local operation of an ended tenure off.
func (r *Replica) returned() {
	r.mu.Lock()
	r.draining--
	quiet := r.draining == 0
	if quiet {
		r.changeLocked()
	}
	r.mu.Unlock()
	if quiet {
		r.wake()
	}
}

// shutdown ends everything and leaves the mark of a clean stop, if nothing is left on the device.
func (r *Replica) shutdown() error {
	r.stopServing("the daemon stops")
	r.mu.Lock()
	s := r.session
	r.problem = "the daemon stops"
	r.recv.Close(^uint64(0))
	r.mu.Unlock()
	if s != nil {
		s.link.Close()
	}
	if r.super == nil || r.dev.Stalled() {
		return nil // a hung operation is never waited for: the machine has to go (R26)
	}
	r.work.close()
	if r.super.Failed() || r.super.Inconsistent() {
		return nil
	}
	if err := r.dev.Flush(); err != nil {
		return fmt.Errorf("flush %s before stopping: %w", r.cfg.Volume.Name, err)
	}
	return r.super.SetClean(&cluster.Clean{Incarnation: r.cfg.Incarnation, Process: r.cfg.Process})
}

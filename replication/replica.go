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
	"encoding/hex"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/rescue"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/maps"
	"hacluster/replication/order"
	"hacluster/replication/primary"
	"hacluster/replication/resync"
	"hacluster/replication/standby"
	"hacluster/replication/wire"
)

// Node is what a Replica needs of the node that it lives on. All methods may be called concurrently.
type Node interface {
	// Now is CLOCK_BOOTTIME.
	Now() cluster.Instant
	// Lease is until when this process may serve the volume in the epoch; in the past when it may not. It is asked anew when that is
	// over; LeaseChanged tells of any other change, and of one that comes when none was in force.
	Lease(volume string, e cluster.Epoch) cluster.Instant
	// Heard is when the newest grant of a lease was asked for that the leader answered, and when the answer was there.
	Heard() (asked, there cluster.Instant)
	// Propose hands a command to the Raft leader. A nil error means that the result is the leader's word; any error,
	// that the outcome is unknown (R27).
	Propose(ctx context.Context, c cluster.Command) (cluster.Result, error)
	// GiveUp ends the lease on the volume at once and tells the leader (R30).
	GiveUp(ctx context.Context, volume string, e cluster.Epoch, to string, failed bool) error
	// Greet opens a stream to a peer, by way of the node of another one if that is not empty.
	Greet(ctx context.Context, peer, by string, h wire.Hello) (*link.Sender, wire.HelloReply, error)
	// Serving tells that the volume accepts I/O in this epoch, FirstAck that a client got its first acknowledgement.
	Serving(volume string, e cluster.Epoch)
	FirstAck(volume string, e cluster.Epoch)
	// Left is in which epoch, and when in milliseconds since 1970, this node's replica was a member last, as far as the
	// history goes; zero: that is not known.
	Left(volume string) (e cluster.Epoch, atMillis int64)
	// Event records something that an operator should find in the history. It does not wait.
	Event(volume, kind, text string)
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
	blockdev.Allocator
	blockdev.Reopener
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
	// Room is shared by all replicas of the node, for writes in semisync and async; nil: one of its own.
	Room *Room
	// Crowd is shared by all replicas of the node; nil: one of its own.
	Crowd *Crowd
	// Bound is what may be lost in async; it counts in no other mode. SetBound changes it.
	Bound primary.Bound
	// Spool is where data goes that members in async lack and memory does not hold.
	Spool SpoolConfig
	// Marks is where this replica keeps on stable storage what may differ from the others; nil: nowhere. It is the
	// caller's to close, after Run has returned.
	Marks *marks.File
	// Undo is where this replica keeps, during a resync, the old content of what that overwrites; nil: nowhere, so it is
	// in pieces until the resync ends. One beside a replica that is whole has been discarded. It is the caller's to close,
	// after Run has returned.
	Undo *undo.Area
	// Rescue is where this replica keeps aside what a resync overwrites while it is held (R19); nil: nowhere, so such a resync
	// waits for a person. It is the caller's to stop, after Run has returned.
	Rescue *rescue.Shelf
	// Problem, when not empty, says why the backing or its superblock cannot be used; then both are nil.
	Problem string
	Log     *slog.Logger
}

// keeps reports whether there is a place for what a resync overwrites.
func (c *Config) keeps() bool { return c.Undo != nil || c.Rescue != nil }

// Replica is one node's copy of one volume.
type Replica struct {
	cfg    Config
	node   Node
	dev    Backing
	super  Superblock
	log    *slog.Logger
	work   *workers
	meter  meter
	timers timers
	limits atomic.Pointer[resync.Limits] // of resyncs; nil: the defaults
	ways   atomic.Pointer[map[string]string]
	kick   chan struct{} // to Run: facts have changed; room for one: a reminder, not a count
	// noting holds one token: who has it may change the marks of health. A channel, for it is held across I/O.
	noting chan struct{}
	// undoing holds one token: who has it may end the undo area, and has undoErr and undoGone.
	undoing  chan struct{}
	undoErr  error // the area could not be removed: final
	undoGone bool  // it was given up in this resync

	roster atomic.Pointer[roster]
	// unmarked is who kept the maps until this process started, if nothing was marked for anybody then (R25).
	unmarked *cluster.Keeper
	asks     atomic.Int32  // reads of the primary's clients whose answers are not on their way, of all streams (R28)
	asked    func()        // one less, as a value made once
	digests  chan struct{} // a token for each digest request, or read of the primary, being answered
	goes     sync.WaitGroup
	// failures counts writes and flushes of the backing that failed, and stalls.
	failures atomic.Uint64
	verified [numVerified]atomic.Uint64 // by comparisons

	verifyMu sync.Mutex
	verify   *VerifyStatus // of the comparison that runs, or ran last; nil: none

	aheadMu sync.Mutex
	ahead   maps.Ahead
	run     maps.Run                 // of what a resync writes here
	width   func(region int64) int64 // missed, as a value made once: one for each write would be an allocation
	runs    func(region int64) int64 // runsOn, likewise

	mu        sync.Mutex // taken before the mutex of a Tenure where both are held
	bound     primary.Bound
	vol       cluster.Volume // the newest record: applied here, or the leader's word
	applied   cluster.Volume // as our own log shows it
	recv      *standby.Receiver
	regs      *maps.Regions   // while standby: which marks on stable storage may go; nil: there are none
	promised  promise         // the newest clearing that was promised
	fitting   bool            // fit runs
	queue     order.Queue     // entries taken from a primary and not returned
	hole      standby.Hole    // ahead of what was compared last in the stream that is received
	seen      standby.Sights  // what was read for digests of the stream that is received
	tenure    *Tenure         // while primary
	balance   bool            // members answer reads of clients
	draining  int             // local operations of ended tenures that have not returned
	session   *session        // the stream that is being received, nil: none
	problem   string          // why the replica must not be used any more
	proposing bool            // a proposal of the role is on its way
	unnoted   int             // failures that are not on stable storage yet
	hung      error           // the stall that was told of last: a stop that it spoils names it
	receiving int             // streams that were accepted and have not been left by Replicate
	digesting int             // digest requests and reads of the primary being answered
	mends     readNews        // reads that a member answered
	unread    readNews        // reads that nobody could answer
	alarms    readNews        // streams of another primary in one epoch
	full      bool            // a stream waits for room among the entries
	taken     int64           // bytes of entries taken and not returned
	stopped   bool            // no goroutine is begun any more
	reopened  uint64          // failures when the backing was opened
	durable   cluster.Epoch   // for which it was flushed before it was to serve, in async
	again     cluster.Instant // before it no other try to reopen or refresh
	noRoom    string          // why a resync waits for room; it counts until roomAt, and while the replica is held
	roomAt    cluster.Instant
	doing     string        // what keeps the replica from its role at the moment, for the status
	changed   chan struct{} // closed when outstanding work or the record changed; nil: nobody waits for that
}

// New makes a Replica that owns dev and super; it does nothing before Run.
func New(cfg Config, node Node, dev Backing, super Superblock) *Replica {
	benchUnmarked(&cfg)
	if cfg.DropAfter == 0 {
		cfg.DropAfter = 500 * time.Millisecond
	}
	if cfg.SuspendLimit == 0 {
		cfg.SuspendLimit = time.Minute
	}
	if cfg.Workers == 0 {
		cfg.Workers = 64
	}
	if cfg.Room == nil {
		cfg.Room = new(Room)
	}
	if cfg.Crowd == nil {
		cfg.Crowd = new(Crowd)
	}
	cfg.Bound = cfg.Spool.within(cfg.Bound)
	if cfg.Rescue != nil && dev != nil {
		dev = &keptBacking{dev, cfg.Rescue}
	}
	r := &Replica{cfg: cfg, bound: cfg.Bound, node: node, dev: dev, super: super, vol: cfg.Volume, applied: cfg.Volume, problem: cfg.Problem,
		log: cfg.Log.With("volume", cfg.Volume.Name), kick: make(chan struct{}, 1),
		noting: make(chan struct{}, 1), undoing: make(chan struct{}, 1), digests: make(chan struct{}, maxAnswers), work: newWorkers(cfg.Workers)}
	r.regs, r.width, r.runs = r.newRegions(), r.missed, r.runsOn
	r.asked = func() { r.asks.Add(-1) }
	r.roster.Store(newRoster(&cfg.Volume, cfg.Node, cfg.Marks))
	if f := cfg.Marks; f != nil && f.Empty() {
		before := f.Before()
		r.unmarked = &cluster.Keeper{Boot: hex.EncodeToString(before.Boot[:]), Process: before.Start}
	}
	r.meter.init(cfg.Node, cfg.Volume.Replicas)
	r.timers.set(cfg.DropAfter, cfg.SuspendLimit)
	if super != nil {
		r.recv = standby.New(super.Epoch(), super.Inconsistent())
		a := r.area()
		r.recv.Rewinds(super.Inconsistent() && a != nil && a.Live())
	} else {
		r.recv = standby.New(0, false)
	}
	return r
}

// Run follows the committed state until ctx ends. Then it stops serving, waits for everything on the device, flushes
// and leaves the clean-stop mark.
func (r *Replica) Run(ctx context.Context) error {
	r.cfg.Crowd.replicas.Add(1)
	defer r.cfg.Crowd.replicas.Add(-1)
	retry := time.NewTimer(0) // proposals of unknown outcome, leases that came
	defer retry.Stop()
	for {
		again := r.timers.drop() / 2
		if r.follow(ctx) {
			again = r.cfg.Crowd.pace(again, looksPerSec)
		}
		retry.Reset(again)
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
		r.changeLocked()
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
	r.followRosterLocked()
	r.recv.Fence(v.Epoch)
	if s := r.session; s != nil && s.epoch < v.Epoch {
		s.link.Close()
	}
	t := r.tenure
	if t != nil && t.epoch < v.Epoch {
		t.gate.close() // R11; Run ends it
	}
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

// watchLocked is closed at the next changeLocked.
func (r *Replica) watchLocked() <-chan struct{} {
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

func (r *Replica) changeLocked() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
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

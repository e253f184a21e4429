package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/undo"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
	"hacluster/replication/primary"
	"hacluster/replication/resync"
	"hacluster/replication/wire"
)

// volumes keeps the replicas of this node, as the cluster's state names them, and offers them to clients.
type volumes struct {
	n    *Node
	goes sync.WaitGroup
	life context.Context // ended by stopAll, for what is told to others meanwhile
	end  context.CancelFunc
	// space is what undo areas and rescue images of all volumes take room of: they lie in one file system.
	space undo.Space
	// early is what the volumes of this node may hold in memory of writes that were acknowledged early (semisync).
	early replication.Room
	// crowd has the idle ones among them take turns.
	crowd replication.Crowd

	mu      sync.Mutex
	nbd     *nbd.Server // nil before run
	all     map[string]*held
	asking  []string // those of all that leaseReports and lags look at: of a thousand volumes, mostly none
	unnamed []string // those that this process was promoted for and no grant had named yet
	done    bool
	news    servedNews        // for the leader
	telling bool              // tellAll runs
	told    map[string]string // why a replica could not be opened, as last logged
	// left has the epochs that superblocks had when this process closed their replicas to open them with another size.
	left map[string]cluster.Epoch

	kick    chan struct{}     // to run: look again; room for one
	newly   atomic.Bool       // run's own: a replica was opened since all were given the configuration
	swept   map[string]bool   // run's own: removed volumes that are set aside, by id
	unswept map[string]string // run's own: why a removed replica could not be
}

// held is one replica and what belongs to it. broken: its backing could not be opened; it is tried again.
type held struct {
	id      string        // of the volume
	size    int64         // with which it was opened
	resized uint64        // the number of that
	stamp   uint32        // of the replica (cluster.Volume.Stamp)
	bound   primary.Bound // in force in async
	// tail has room for one: who clears what lies behind the end, or, for good, who closes the replica.
	tail     chan struct{}
	replica  *replication.Replica
	broken   string
	retired  bool // the volume was removed, or has another size: it is being closed
	close    func()
	deadline func(time.Duration) // of its disk operations; nil: there is no disk
	cancel   context.CancelFunc
	ended    chan struct{} // closed when its Run has returned
	learned  cluster.Instant
	epoch    cluster.Epoch // of learned
	promote  int64         // ms from learned to serving
}

func newVolumes(n *Node) *volumes {
	v := &volumes{n: n, space: undo.Space{Reserve: undoReserve}, all: map[string]*held{}, left: map[string]cluster.Epoch{}, told: map[string]string{}, kick: make(chan struct{}, 1), swept: map[string]bool{}, unswept: map[string]string{}}
	v.life, v.end = context.WithCancel(context.Background())
	return v
}

// How often a backing that could not be opened is tried again.
const reopenPause = 2 * time.Second

func (v *volumes) run(ctx context.Context) error {
	nbd, err := v.serveNBD(ctx)
	if err != nil {
		return err
	}
	defer nbd.stop()
	reopen := time.NewTicker(reopenPause)
	defer reopen.Stop()
	var taken *config.Config // by all replicas
	var before *cluster.State
	settled := false // following before once more would find nothing to do
	for {
		st, changed := v.n.state.watch()
		_, cfg, configured := v.n.run.watch()
		if st != before || cfg != taken || !settled {
			v.retire(st)
			before, settled = st, v.follow(st)
		}
		if opened := v.newly.Swap(false); opened || cfg != taken {
			v.configure(cfg)
			v.limit(nbd.server, cfg)
			_ = nbd.follow(cfg) // it has logged what cannot be opened
			taken = cfg
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-configured:
		case <-v.kick:
			settled = false
		case <-reopen.C:
			if v.closeBroken() {
				settled = false
			}
			_ = nbd.follow(v.n.conf())
		}
	}
}

// wake has run look again.
func (v *volumes) wake() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

// configure gives open replicas the times of the configuration.
func (v *volumes) configure(cfg *config.Config) {
	v.crowd.SetResyncs(int(cfg.Cluster.Limits.Resyncs))
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, h := range v.all {
		if conf, ok := cfg.Mirror(name); ok {
			h.replica.SetTimers(cfg.Timers.DropAfter, conf.SuspendLimit)
			h.replica.SetResync(resync.Limits{Min: conf.Resync.MinRate, Max: conf.Resync.MaxRate})
			h.replica.SetBalance(conf.Read == config.ReadBalance)
			h.bound = boundOf(conf.Async)
			h.replica.SetSpool(v.spoolDir(name, conf.Async))
			h.replica.SetBound(h.bound)
			h.replica.SetWays(conf.Ways())
		}
		if h.deadline != nil {
			h.deadline(cfg.Cluster.DiskDeadline)
		}
	}
}

func (v *volumes) limit(server *nbd.Server, cfg *config.Config) {
	if err := server.SetLimits(nbdConfig(cfg.Cluster.Limits)); err != nil {
		v.n.log.Error("the limits of nbd stay as they were", "error", err)
	}
}

// follow tells each open replica its newest record, and opens some of those that the state gives this node and that are not open.
// settled: all are open and as they should be.
func (v *volumes) follow(st *cluster.State) (settled bool) {
	var missing []cluster.Volume
	var asking, unnamed []string
	settled = true
	for name, vol := range st.Volumes {
		if _, ok := vol.Replica(v.n.me.Name); !ok {
			continue
		}
		h, may := v.replicaOf(vol)
		if vol.HasAsync() || vol.NextMode != "" || vol.Primary == v.n.me.Name && vol.Process != v.n.dir.id.Start {
			asking = append(asking, name)
		}
		if h == nil {
			settled = false
			if may {
				missing = append(missing, vol)
			}
			continue
		}
		v.mu.Lock()
		if vol.Epoch != h.epoch {
			h.epoch, h.learned = vol.Epoch, v.n.now()
		}
		v.mu.Unlock()
		h.replica.Applied(vol)
		if v.reopenResized(vol, h) {
			settled = false
			continue
		}
		if vol.Primary == v.n.me.Name && vol.Process == v.n.dir.id.Start && v.n.lease.until(name, vol.Epoch) == 0 {
			settled = false
			unnamed = append(unnamed, name)
		}
	}
	v.mu.Lock()
	v.asking, v.unnamed = asking, unnamed
	v.mu.Unlock()
	if len(unnamed) > 0 {
		v.n.lease.kickNow() // promoted: ask at once
	}
	if v.openSome(st, missing) {
		v.wake() // what was opened learns its record, and the next come
	}
	return settled
}

// awaitsName reports whether a volume that this process was promoted for not long ago has not been named by a grant yet: the leader
// grants by the state that it has applied, and may have got to know of the promotion after it answered, or the answer was on its way.
func (v *volumes) awaitsName() bool {
	since := v.n.now().Add(-v.n.conf().Timers.Lease)
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.unnamed, func(name string) bool {
		h := v.all[name]
		return h != nil && h.learned > since && v.n.lease.until(name, h.epoch) == 0
	})
}

// asked are the replicas of which a request for a lease, or who follows lags, may have something to tell, by the state that was
// followed last.
func (v *volumes) asked() (some []*replication.Replica) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, name := range v.asking {
		if h := v.all[name]; h != nil {
			some = append(some, h.replica)
		}
	}
	return some
}

// replicaOf is the replica if it is open; if not, may tells whether it may be opened now.
func (v *volumes) replicaOf(vol cluster.Volume) (h *held, may bool) {
	_, configured := v.n.conf().Mirror(vol.Name)
	v.mu.Lock()
	defer v.mu.Unlock()
	h = v.all[vol.Name]
	if h != nil && h.id != vol.ID || h == nil && !configured {
		return nil, false // the one before is being closed, or the configuration with it is not taken over yet
	}
	return h, !v.done
}

// maxOpens is how many replicas are opened at a time, and before those that are open learn what is new: each waits for the disk some
// times, and while a thousand are opened the cluster goes on.
const maxOpens = 32

// openSome opens some of the replicas, and reports whether it did.
func (v *volumes) openSome(st *cluster.State, missing []cluster.Volume) bool {
	v.mu.Lock()
	if v.done {
		v.mu.Unlock()
		return false
	}
	v.goes.Add(1) // stopAll waits until we are through
	v.mu.Unlock()
	defer v.goes.Done()
	lags := st.Nodes[v.n.me.Name].Start != v.n.dir.id.Start
	var opens sync.WaitGroup
	some := 0
	for _, vol := range missing {
		if lags && v.mayLag(vol) {
			continue
		}
		rep, _ := vol.Replica(v.n.me.Name)
		opens.Go(func() { v.openOne(st, vol, rep) })
		if some++; some == maxOpens {
			break
		}
	}
	opens.Wait()
	if some > 0 {
		v.n.lease.kickNow()
	}
	return some > 0
}

func (v *volumes) openOne(st *cluster.State, vol cluster.Volume, rep cluster.Replica) {
	h := v.open(st, vol, rep)
	v.newly.Store(true)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all[vol.Name] = h
	if v.done {
		h.cancel()
	}
}

func (v *volumes) open(st *cluster.State, vol cluster.Volume, rep cluster.Replica) *held {
	conf, _ := v.n.conf().Mirror(vol.Name)
	cfg := replication.Config{Node: v.n.me.Name, ClusterID: idOf(st.ID), VolumeID: idOf(vol.ID), Volume: vol, Process: v.n.dir.id.Start,
		Boot: v.n.boot, DropAfter: v.n.conf().Timers.DropAfter, SuspendLimit: conf.SuspendLimit, Workers: int(v.n.conf().Cluster.Limits.DiskOperations), Room: &v.early, Crowd: &v.crowd, Bound: boundOf(conf.Async), Spool: v.spoolOf(vol.Name, conf.Async), Log: v.n.log}
	h := &held{bound: cfg.Bound, id: vol.ID, size: vol.Size, resized: vol.Resized, stamp: vol.Stamp(v.n.me.Name), tail: make(chan struct{}, 1), ended: make(chan struct{})}
	b, err := v.openBacking(st, vol, rep.Device, conf.Volume)
	if err != nil {
		h.broken, cfg.Problem = err.Error(), err.Error()
		cfg.Incarnation = cluster.Incarnation{Boot: hex.EncodeToString(v.n.boot[:])} // whether it was detached is not known
		if v.tellsNow(vol.Name, h.broken) != h.broken {
			v.n.log.Error("replica cannot be opened", "volume", vol.Name, "device", rep.Device, "error", err)
			v.n.events.add("replica not opened", vol.Name, fmt.Sprintf("the replica of %s takes no part, and is tried again every %v: %v", v.n.me.Name, reopenPause, err))
		}
		h.replica = replication.New(cfg, replicaNode{v.n}, nil, nil)
		h.close = func() {}
	} else {
		if v.tellsNow(vol.Name, "") != "" {
			v.n.events.add("replica opened", vol.Name, fmt.Sprintf("the replica of %s could be opened at last: %s", v.n.me.Name, rep.Device))
		}
		cfg.Incarnation, cfg.Fresh, cfg.Inline, cfg.Marks, cfg.Undo, cfg.Rescue = b.incarnation, b.fresh, b.inline, b.marks, b.undo, b.rescue
		h.replica = replication.New(cfg, replicaNode{v.n}, b.dev, b.super)
		b.stalled.Store(h.replica)
		h.close, h.deadline = b.close, b.dev.SetDeadline
	}
	h.replica.SetWays(conf.Ways())
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	v.goes.Go(func() {
		defer close(h.ended)
		if err := h.replica.Run(ctx); err != nil {
			v.n.log.Error("replica did not stop cleanly", "volume", vol.Name, "error", err)
			if errors.Is(err, blockdev.ErrStalled) {
				v.n.fail(fmt.Errorf("volume %s: %w: look after the disk of %s; if it is only slow, raise disk_deadline (%v)",
					vol.Name, err, rep.Device, v.n.conf().Cluster.DiskDeadline))
				return // closing would wait for the hung operation (R26)
			}
		}
		h.tail <- struct{}{}
		h.close()
	})
	return h
}

// tellsNow notes why a replica could not be opened, as it is told now, and what was told before.
func (v *volumes) tellsNow(volume, why string) (before string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before = v.told[volume]
	if v.told[volume] = why; why == "" {
		delete(v.told, volume)
	}
	return before
}

// closeBroken forgets replicas whose backing could not be opened, so that follow tries again, and reports whether there were any.
func (v *volumes) closeBroken() bool {
	v.mu.Lock()
	var gone []*held
	for name, h := range v.all {
		if h.broken != "" {
			gone = append(gone, h)
			delete(v.all, name)
		}
	}
	v.mu.Unlock()
	for _, h := range gone {
		h.cancel()
		<-h.ended
	}
	return len(gone) > 0
}

// stopAll ends the replicas, in order: serve no more, wait for the disk, flush, leave the mark.
func (v *volumes) stopAll() {
	v.end()
	v.mu.Lock()
	v.done = true
	var all []*held
	for _, h := range v.all {
		all = append(all, h)
	}
	v.mu.Unlock()
	for _, h := range all {
		h.cancel()
	}
	v.goes.Wait()
}

func idOf(s string) (id wire.ID) {
	b, err := hex.DecodeString(s)
	if err == nil && len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

func (v *volumes) replica(name string) *replication.Replica {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.all[name]; h != nil {
		return h.replica
	}
	return nil
}

func (v *volumes) replicas() (all []*replication.Replica) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.all {
		all = append(all, h.replica)
	}
	return all
}

func (v *volumes) server() *nbd.Server {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.nbd
}

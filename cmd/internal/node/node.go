// Package node is one member of a cluster as a value: New, Run, and what the admin service asks of it. It is the
// composition root: here Raft, gossip, leases, replicas and frontends meet, through small interfaces that each side
// declares. It contains wiring and waiting; what is decided is decided in the pure packages (cluster, failover, role,
// primary, standby).
//
//	datadir.go    the folder, its lock, the number of this process     clock_linux.go  CLOCK_BOOTTIME, boot id
//	raft.go       the replicated state and how commands reach it       forming.go      founding a cluster, joining one
//	leading.go    while this node is the Raft leader: failover.Leader   lease.go        this node's own lease
//	gather.go     what many volumes propose at once, as few entries
//	volumes.go    replicas and their frontends   devices.go local devices   peers.go        connections to the other nodes
//	serve.go      control RPCs    admin*.go  the admin service          http.go         health
//	figures.go    how long failovers took     reason.go, known.go         what a status tells an operator
//	trust.go      who may speak with this node, certificates     raftgreeting.go  how Raft connections begin
//	env.go        what a node takes from its machine     scheduled.go  verifies by the clock
//	fencing.go    how the leader turns nodes off     admin_fence.go  what people ask of that
//	services.go   what follows the primary      services_standing.go  when it may run here, and when it has stopped
//	voters.go     who votes       seen.go     what others remember of a voter      journal.go  events      stop.go  handing over
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"hacluster/blockdev/deadline"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/identity"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
	"hacluster/heartbeat/fence/agent"
	"hacluster/heartbeat/membership"
	"hacluster/replication"
	"hacluster/replication/link"
)

// Node is one running member.
type Node struct {
	cfg      *config.Config
	log      *slog.Logger
	me       config.Node
	env      Env
	boot     [16]byte
	dir      *dataDir
	old      bool      // the directory held Raft state when this process started
	run      runConfig // cfg is the file as it was at the start: identity, addresses and folders are its
	onDisk   fileHash
	trans    *identity.Transport
	mux      *identity.Mux
	gossip   *membership.Membership
	peers    *peers
	state    *stateStore
	lease    *leaseHolder
	joint    *gather // what replicas propose to a leader that is another node
	vols     *volumes
	services *services
	devices  *devices
	events   *journal
	seen     *seenBook
	disk     *deadline.Watch // calls to the disk of data_dir that are outstanding
	known    *cluster.State  // kept by an earlier process, nil without; for status only
	failed   chan struct{}   // closed when the process has to end by itself
	why      error           // of that; to be read when failed is closed

	failOnce sync.Once
	joined   chan struct{} // closed when raft is open
	readyc   chan struct{} // closed when this process is registered

	// Version of the program, for who looks at its figures. Set it before Run.
	Version   string
	formation atomic.Pointer[cluster.Init] // agreed to; not under mu, for connections ask while it is held
	won       atomic.Uint64                // elections
	commits   replication.Histogram        // what this node proposed as leader
	agents    *agent.Runner                // of fencing
	missing   missingAgents                // likewise, those that this machine does not have
	tests     fenceTests                   // likewise, that people asked for

	mu       sync.Mutex
	raft     *consensus.Raft
	leading  *leading
	ready    bool
	stopping bool
	openRaft func(bootstrap []consensus.Server) error
}

// New opens the data directory and the node's port. Whatever it refuses, nothing of the volumes was touched.
func New(cfg *config.Config, log *slog.Logger, env Env) (*Node, error) {
	env, err := env.onMachine()
	if err != nil {
		return nil, err
	}
	raftDir := filepath.Join(cfg.DataDir(), "raft")
	hasRaft, err := consensus.HasState(raftDir)
	if err != nil {
		return nil, fmt.Errorf("raft state: %w", err)
	}
	version, applied := atStart(cfg, hasRaft, log)
	trans, err := newTransport(cfg, applied, env.Network, log)
	if err != nil {
		return nil, err
	}
	dir, err := openDataDir(cfg.DataDir(), cfg.Self, hasRaft)
	if err != nil {
		return nil, err
	}
	if onMemory(cfg.DataDir()) {
		if !cfg.Insecure {
			dir.close()
			return nil, fmt.Errorf("data_dir %s is on a memory file system: a power loss would empty it; put it on a disk", cfg.DataDir())
		}
		log.Warn("data_dir is on a memory file system: a power loss empties it", "data_dir", cfg.DataDir())
	}
	n := &Node{disk: deadline.New(), cfg: cfg, log: log, me: cfg.Me(), env: env, boot: env.Boot, dir: dir, old: hasRaft, failed: make(chan struct{}), joined: make(chan struct{}), readyc: make(chan struct{}),
		trans: trans, state: newStateStore(), events: newJournal(cfg.Self, int(applied.Cluster.Limits.Events))}
	n.run.set(version, applied)
	n.formation.Store(dir.id.Formation)
	if err := n.open(); err != nil {
		dir.close()
		return nil, err
	}
	return n, nil
}

func (n *Node) open() (err error) {
	if n.mux, err = n.trans.Listen(n.me.Address); err != nil {
		return fmt.Errorf("listen on %s: %w", n.me.Address, err)
	}
	if err := n.openGossip(); err != nil {
		n.mux.Close()
		return err
	}
	n.peers = newPeers(n.cfg, n.trans, n.clusterNow, n.conf)
	n.peers.setLines(n.me.Name, n.cfg, minuteOfWeek(wallClock()))
	n.lease = newLeaseHolder(n)
	n.vols = newVolumes(n)
	n.joint = &gather{send: n.proposeTo, time: func() time.Duration { return n.conf().Timers.DropAfter }, goes: func(f func()) { n.vols.goes.Go(f) }, ctx: context.Background()}
	n.services = newServices(n)
	n.devices = newDevices(n)
	n.openRaft = n.raftOpener()
	n.agents = &agent.Runner{Holder: n.env.Fence, Dir: n.cfg.DataDir()}
	n.cleanAgents()
	n.known = n.lastKnown()
	n.seen = n.loadSeen()
	return nil
}

func (n *Node) openGossip() (err error) {
	var nodes []membership.Node
	for _, c := range n.cfg.Nodes {
		if len(c.Links) > 0 {
			nodes = append(nodes, membership.Node{Name: c.Name, Links: c.Links})
		}
	}
	if len(n.me.Links) == 0 {
		return nil // no links, no gossip: it is a hint only
	}
	heard := &heard{add: n.events.add, down: map[string]bool{}}
	n.gossip, err = membership.New(membership.Config{Cluster: n.cfg.Cluster.Name, Node: n.me.Name, Nodes: nodes, Keys: n.trans.GossipKeys(),
		Base: gossipBase(n.conf().Timers.Lease), Logger: n.log, OnChange: heard.changed, Network: n.env.Links})
	if err != nil {
		return fmt.Errorf("heartbeat links: %w", err)
	}
	return nil
}

// gossipBase is what the gossip's times are multiples of. A crash is shown after five of it, at twice a lease: by then the
// failover is over, and it is told for people to see.
func gossipBase(lease time.Duration) time.Duration { return min(lease*2/5, 800*time.Millisecond) }

// Run takes part until ctx ends, then stops cleanly: hands over, flushes, leaves the marks. An error other than nil
// says why the node had to end by itself.
func (n *Node) Run(ctx context.Context) error {
	defer n.dir.close()
	admin, err := n.trans.ListenUnix(n.cfg.AdminSocket())
	if err != nil {
		n.mux.Close()
		return fmt.Errorf("admin socket: %w", err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer n.timeDisk()() // to the very end: a stop writes as well
	g, life := errgroup.WithContext(life)
	server := n.newServer(control.ServerOptions())
	data, streams := link.NewServer(n.vols, n.log), n.mux.Listener(identity.ProtoData)
	carried, carry := link.NewServer(relays{n}, n.log), n.mux.Listener(identity.ProtoRelay)
	control.Register(server, n)
	api.Register(server, n)
	local := n.newServer(api.ServerOptions())
	api.Register(local, n)
	g.Go(func() error { return quiet(server.Serve(n.mux.Listener(identity.ProtoGRPC))) })
	g.Go(func() error { return quiet(local.Serve(admin)) })
	g.Go(func() error { return data.Serve(streams) })
	g.Go(func() error { return carried.Serve(carry) })
	if n.gossip != nil {
		g.Go(func() error { return n.gossip.Run(life) })
	}
	g.Go(func() error { return n.serveHTTP(life) })
	g.Go(func() error { return n.join(life) })
	g.Go(func() error { return n.lease.run(life) })
	g.Go(func() error { return n.vols.run(life) })
	g.Go(func() error { return n.services.run(life) })
	g.Go(func() error { return n.devices.run(life) })
	g.Go(func() error { return n.keepSeen(life) })
	g.Go(func() error { return n.register(life) })
	g.Go(func() error { return n.events.follow(life, n.state) })
	g.Go(func() error { return n.keepKnown(life) })
	g.Go(func() error { return n.followConfig(life) })
	g.Go(func() error { return n.followAgents(life) })
	g.Go(func() error { return n.watchExpiry(life) })
	g.Go(func() error { return n.followSchedules(life) })
	g.Go(func() error { return n.followLags(life) })
	g.Go(func() error { return n.followLines(life) })
	g.Go(func() error {
		select {
		case <-n.failed:
			return n.why
		case <-life.Done():
			return nil
		}
	})
	select {
	case <-ctx.Done():
		n.stopServices()
		n.handAllOver()
		n.devices.letGo()
	case <-life.Done():
	}
	end()
	n.vols.stopAll()
	n.closeRaft()
	server.Stop()
	local.Stop()
	streams.Close()
	carry.Close()
	data.Close()
	carried.Close()
	n.peers.close()
	n.mux.Close()
	n.trans.Close()
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	select {
	case <-n.failed: // also in the stop, when nobody waits for it any more: that was no clean one
		return n.why
	default:
		return err
	}
}

func quiet(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// fail ends the process for a reason that no retry mends.
func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		n.log.Error("this node ends", "error", err) // at once: what hangs may keep Run from returning it
		n.why = err
		close(n.failed)
	})
}

// Failed is closed when the node has to end by itself. Run then ends what it can; a disk that hangs may keep it from
// returning, so the process must not wait for it for long (R26).
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Alive returns when everything that a status asks for has answered. It waits for locks, never for a disk or another node:
// a daemon in which it does not return hangs.
func (n *Node) Alive() {
	n.vols.reports()
	n.vols.serving()
	n.lease.remaining()
	n.state.get()
	n.events.since(^uint64(0))
}

func (n *Node) now() cluster.Instant { return n.env.Now() }

// command fills in what every command bears.
func (n *Node) command(c cluster.Command) cluster.Command {
	if c.By == "" {
		c.By = n.me.Name
	}
	c.AtMillis = wallClock().UnixMilli()
	return c
}

// Ready is closed once this process takes part: it has joined and caught up.
func (n *Node) Ready() <-chan struct{} { return n.readyc }

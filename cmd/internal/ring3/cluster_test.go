package ring3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/client"
	"hacluster/cmd/internal/lab/history"
	"hacluster/heartbeat/membership"
)

const (
	rto        = 3 * time.Second
	volumeSize = 4 << 20
)

// names of the machines; the last is the witness.
var (
	names   = []string{"alpha", "beta", "gamma"}
	holders = names[:2] // of replicas
)

func addressOf(name string) string {
	for i, n := range names {
		if n == name {
			return fmt.Sprintf("127.0.0.%d", i+1)
		}
	}
	return "127.0.0.99" // a client
}

func machineAt(addr string) string {
	for _, n := range names {
		if strings.HasPrefix(addr, addressOf(n)+":") {
			return n
		}
	}
	return ""
}

func gossipAddr(name string, cable int) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("%s:%d", addressOf(name), 7401+cable))
}

// world is everything. One goroutine drives it: the fault schedule's.
type world struct {
	seed   uint64
	rnd    *rand.Rand // the schedule's
	began  time.Time
	dir    string
	file   string
	log    *slog.Logger
	net    *network
	gossip *membership.Memory
	m      map[string]*machine

	load     *client.Client
	stopLoad func()
	tenures  map[uint64]string
	told     []string // the schedule, as it went
	twice    []string // epochs with two primaries
	volatile bool     // clients do not ask for durable writes: power may go only where another replica has all
	whole    bool     // nothing has happened since all was well
	selfEnds int      // processes that ended by themselves
}

// newWorld is to be called in the bubble.
func newWorld(seed uint64, dir string, log slog.Handler) (*world, error) {
	w := &world{seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), began: time.Now(), dir: dir, file: filepath.Join(dir, "cluster.hcl"),
		log: slog.New(log), net: newNetwork(seed), gossip: membership.NewMemory(), m: map[string]*machine{}, tenures: map[uint64]string{}}
	w.gossip.Latency = 150 * time.Microsecond
	for _, n := range names {
		m := &machine{c: w, name: n, disk: &disk{}, boot: [16]byte{byte(len(w.m) + 1)}}
		w.m[n] = m
	}
	return w, os.WriteFile(w.file, []byte(w.config(rto)), 0o600)
}

func (w *world) config(target time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster \"ring\" {\n  rto = %q\n  data_dir = \"%s/${node.name}\"\n}\n", target, w.dir)
	for _, n := range names {
		role := ""
		if n == "gamma" {
			role = "  role = \"witness\"\n"
		}
		fmt.Fprintf(&b, "node %q {\n%s  address = \"%s:7400\"\n  links = [%q, %q]\n}\n", n, role, addressOf(n), gossipAddr(n, 0), gossipAddr(n, 1))
	}
	fmt.Fprintf(&b, "volume \"vol\" {\n  size = \"%d\"\n  mode = \"sync\"\n", volumeSize)
	for _, n := range holders {
		fmt.Fprintf(&b, "  replica %q { device = \"/ring3/%s\" }\n", n, n)
	}
	fmt.Fprintf(&b, "  export {\n    nbd = [\"unix://%s/${node.name}.sock\"]\n    attach = \"none\"\n  }\n}\n", w.dir)
	return b.String()
}

// startLoad has clients work on all data nodes, over sockets that no cut concerns.
func (w *world) startLoad(think time.Duration) {
	var servers []client.Server
	for _, n := range holders {
		servers = append(servers, client.Server{Node: n, URI: fmt.Sprintf("nbd+unix:///vol?socket=%s/%s.sock", w.dir, n)})
	}
	h := w.net.host("client")
	w.load = client.New(client.Config{Servers: servers, Writers: 3, Readers: 2, Blocks: 8, Stride: 16, Think: think, FUA: !w.volatile, Clock: w.clock, Connect: h.Dial})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.load.Run(ctx)
	}()
	w.stopLoad = func() {
		cancel()
		<-done
	}
}

// status is what a node says; err: it does not answer with a quorum behind it.
func (w *world) status(name string) (*api.Status, error) {
	m := w.m[name]
	if m.node == nil {
		return nil, errors.New("it does not run")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := m.node.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	if !s.Quorum {
		return s, errors.New("no quorum")
	}
	w.note(m, s)
	return s, nil
}

// note keeps who was primary in which epoch.
func (w *world) note(m *machine, s *api.Status) {
	add := func(epoch uint64, node string) {
		if was, known := w.tenures[epoch]; known && was != node && node != "" {
			w.twice = append(w.twice, fmt.Sprintf("epoch %d: %s and %s", epoch, was, node))
		}
		if node != "" {
			w.tenures[epoch] = node
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if all, err := m.node.Failovers(ctx); err == nil {
		for _, f := range all {
			add(f.Epoch, f.To)
		}
	}
	for _, v := range s.Volumes {
		add(v.Epoch, v.Primary)
	}
}

func (w *world) line() (all []history.Tenure) {
	for e := uint64(0); len(all) < len(w.tenures); e++ {
		if n, ok := w.tenures[e]; ok {
			all = append(all, history.Tenure{Epoch: e, Node: n})
		}
	}
	return all
}

// settleLimit is how long a cluster may take to be whole again after its last fault, in virtual time.
const settleLimit = 3 * time.Minute

// awaitHealthy starts what ended by itself, and waits until every node says that all is well.
func (w *world) awaitHealthy(limit time.Duration) error {
	began, last := time.Now(), ""
	for time.Since(began) < limit {
		if err := w.revive(); err != nil {
			return err
		}
		now := w.unwell()
		if now != last {
			w.log.Info("HEALTH after " + time.Since(began).String() + ": " + now)
		}
		if last = now; now == "" {
			w.whole = true
			return nil
		}
		time.Sleep(250 * time.Millisecond)
	}
	return fmt.Errorf("not healthy %v after the last fault: %s", limit, last)
}

// revive does what a service manager does.
func (w *world) revive() error {
	for _, n := range names {
		m := w.m[n]
		if m.node == nil {
			continue
		}
		select {
		case <-m.proc.done:
		default:
			continue
		}
		w.tell("%s ended by itself: %v", n, m.proc.err)
		w.selfEnds++
		_ = m.shut() // its error was told
		time.Sleep(time.Second)
		if err := m.start(); err != nil {
			return err
		}
	}
	return nil
}

// unwell says what keeps the cluster from being whole; empty: nothing.
func (w *world) unwell() string {
	for _, n := range names {
		s, err := w.status(n)
		if err != nil {
			return fmt.Sprintf("%s: %v", n, err)
		}
		for _, x := range s.Nodes {
			if x.State != "alive" {
				return fmt.Sprintf("%s says that %s is %s", n, x.Name, x.State)
			}
		}
		if len(s.Volumes) != 1 {
			return n + " knows no volume"
		}
		if v := s.Volumes[0]; v.State != api.VolumeHealthy || len(v.InSync) != len(holders) {
			return fmt.Sprintf("%s says that the volume is %s, epoch %d of %s, in sync %v: %s", n, v.State, v.Epoch, v.Primary, v.InSync, v.Reason)
		}
	}
	return ""
}

func (w *world) tell(format string, args ...any) {
	line := fmt.Sprintf("%9.3f  ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.told = append(w.told, line)
	w.log.Info("SCHEDULE " + line)
}

// found starts all machines and waits for the cluster.
func (w *world) found() error {
	for _, n := range names {
		if err := w.m[n].start(); err != nil {
			return err
		}
	}
	return w.awaitHealthy(settleLimit)
}

// end stops everything, in any state, and waits for it.
func (w *world) end() (err error) {
	if w.stopLoad != nil {
		w.stopLoad()
	}
	for _, n := range names {
		err = errors.Join(err, w.m[n].shut())
	}
	for _, n := range names {
		w.m[n].past.Wait()
	}
	return err
}

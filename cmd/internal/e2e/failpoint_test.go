package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev/failpoint"
	"hacluster/cmd/internal/lab/disk"
)

// tagged is the folder of programs with fail points: HACLUSTER_FAILPOINT_BIN, or built now.
var tagged = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("HACLUSTER_FAILPOINT_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.MkdirTemp("", "hacluster-failpoints")
	if err != nil {
		return "", err
	}
	taggedDir = dir
	out, err := exec.Command("go", "build", "-tags", "failpoints", "-o", dir+"/", "hacluster/cmd/haclusterd", "hacluster/cmd/ha-admin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build with fail points: %w: %s", err, out)
	}
	return dir, nil
})

var taggedDir string // removed by TestMain

// site is a point and the node that crashes there.
type site struct {
	point failpoint.Point
	node  string
}

func (s site) String() string { return s.point.String() + " on " + s.node }

// first lists the points that only a node's very first start hits.
var first = []failpoint.Point{failpoint.SuperblockCreate, failpoint.SuperblockCreateWritten, failpoint.SuperblockCreateRenamed,
	failpoint.SuperblockCreated, failpoint.RaftCreate, failpoint.RaftCreateRenamed, failpoint.RaftCreated}

// often lists those that are hit so often under load that any of the first hits may be the one.
var often = map[failpoint.Point]int64{failpoint.PrimaryWrite: 200, failpoint.PrimaryWritten: 200, failpoint.PrimarySend: 200, failpoint.PrimarySent: 200,
	failpoint.PrimaryAnswer: 200, failpoint.PrimaryAnswered: 200, failpoint.PrimaryAcked: 200, failpoint.StandbyWrite: 200,
	failpoint.StandbyWritten: 200, failpoint.StandbyAck: 200, failpoint.RaftAppend: 12, failpoint.RaftAppendStored: 12, failpoint.RaftAppended: 12,
	failpoint.RaftApply: 12, failpoint.RaftApplied: 12, failpoint.LeaderGrant: 20}

// sites lists where a crash is possible: everywhere on the data nodes, and on the witness what has no replica in it.
// The leader's decisions are crashed on the witness, which leads unless it is gone.
func sites() (steady, fresh []site) {
	for _, p := range failpoint.All() {
		name := p.String()
		if strings.HasPrefix(name, "rollback.") || strings.HasPrefix(name, "rescue.") || strings.HasPrefix(name, "resize") {
			continue // only what a person asks for goes there: make powercuts and make growcuts crash in it
		}
		leader := strings.HasPrefix(name, "leader.")
		shared := leader || strings.HasPrefix(name, "raft.") || strings.HasPrefix(name, "identity.") || strings.HasPrefix(name, "regist")
		for _, n := range Nodes {
			s := site{p, n}
			switch witness := n == "gamma"; {
			case witness && !shared, leader && !witness:
			case slices.Contains(first, p):
				fresh = append(fresh, s)
			default:
				steady = append(steady, s)
			}
		}
	}
	return steady, fresh
}

// crashing is a cluster whose nodes crash at fail points.
type crashing struct {
	*powered
	rng   *rand.Rand
	power *powerCuts
}

// powerCuts counts what they cost, over all clusters of a run.
type powerCuts struct{ cuts, taken atomic.Int64 }

func crasher(t *testing.T, seed uint64, cuts *powerCuts) *crashing {
	t.Helper()
	if err := disk.Supported(); err != nil {
		t.Skipf("disks that lose power take root and FUSE: %v", err)
	}
	bin, err := tagged()
	if err != nil {
		t.Fatal(err)
	}
	c := &crashing{power(t, Config{Bin: bin, RTO: "3s"}), rand.New(rand.NewPCG(seed, 7)), cuts}
	for _, n := range Nodes {
		c.arm(site{node: n}, 0) // all count
	}
	return c
}

func (c *crashing) hits(node string) string { return filepath.Join(c.cfg.Dir, node+".hits") }

// arm has a node's next process crash at the n-th hit of a point; 0: nowhere.
func (c *crashing) arm(s site, n int64) {
	env := []string{"HACLUSTER_FAILPOINT_HITS=" + c.hits(s.node)}
	if n > 0 {
		env = append(env, "HACLUSTER_FAILPOINT="+s.point.String()+":"+strconv.FormatInt(n, 10))
	}
	c.SetEnv(s.node, env...)
}

func (c *crashing) dead(node string) bool { return c.Pid(node) == 0 }

// crashed checks that a node ended at the point, by its own hand.
func (c *crashing) crashed(s site, before uint64) {
	c.t.Helper()
	c.Kill(s.node) // it is gone; this waits for what it leaves
	st, _ := c.proc(s.node).cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !st.Signaled() || st.Signal() != syscall.SIGKILL {
		c.t.Fatalf("%v: it ended with %v", s, c.proc(s.node).cmd.ProcessState)
	}
	if after := c.count(s); after <= before {
		c.t.Fatalf("%v: it was hit %d times before and %d after", s, before, after)
	}
}

func (c *crashing) count(s site) uint64 {
	h, err := failpoint.ReadHits(c.hits(s.node))
	if err != nil {
		return 0 // not yet
	}
	return h[s.point]
}

// revive starts a crashed node again, perhaps after its power was cut.
func (c *crashing) revive(s site, cut bool) {
	c.t.Helper()
	if cut {
		mode := ways[c.rng.IntN(len(ways))]
		lost, err := c.disks[s.node].PowerCut(mode, c.rng.Uint64())
		if err != nil {
			c.t.Fatal(err)
		}
		c.power.cuts.Add(1)
		c.power.taken.Add(int64(lost.LostWrites + lost.LostNames))
		c.boot(s.node)
	}
	c.arm(s, 0)
	c.start(s.node)
}

// spare reports whether the power of a node that crashed may be cut without losing what was acknowledged and not
// flushed: the other replica is a member, so it has all of that.
func (c *crashing) spare(node string) bool {
	s, err := c.Status(c.ctx)
	return node == "gamma" || err == nil && s.Quorum && !c.dead(other(node)) && isMember(other(node))(s)
}

// admissions is how often a replica was admitted so far: one that lost its memory is dropped and admitted anew, and
// only then has what was acknowledged before.
func (c *crashing) admissions() (n uint64) {
	for _, node := range Nodes {
		n += c.count(site{failpoint.Admitted, node})
	}
	return n
}

// step is something that a cluster goes through while a node waits to crash.
type step func(c *crashing, l *loading, node string)

// upTo waits for a condition, or for the node to be dead, and not for ever.
func (c *crashing) upTo(node string, limit time.Duration, cond func() bool) {
	for deadline := time.Now().Add(limit); !c.dead(node) && !cond() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *crashing) isNow(want func(*apiStatus) bool) func() bool {
	return func() bool {
		s, err := c.Status(c.ctx)
		return err == nil && want(s)
	}
}

func (c *crashing) settle(node string) { c.upTo(node, 20*time.Second, c.isNow(Healthy)) }

func (c *crashing) moveTo(node, to string) {
	_, _, _ = c.Admin(c.ctx, "failover", Volume, "--to", to) // it may well fail: somebody crashes
	c.upTo(node, 5*time.Second, c.isNow(PrimaryIs(to)))
}

func (c *crashing) acks(l *loading, node string, n int64) {
	want := l.acks.Load() + n
	c.upTo(node, 10*time.Second, func() bool { return l.acks.Load() >= want })
}

// peer is another node than this one, a data node if it has a replica.
func peer(node string) string {
	if node == "gamma" {
		return "beta"
	}
	return other(node)
}

// role is who takes the place of the node where a replica is wanted.
func role(node string) string {
	if node == "gamma" {
		return "alpha"
	}
	return node
}

// lead has the witness lead the group: the leader is ended, and who is elected moves leadership off a primary.
func (c *crashing) lead(node string) {
	for range 5 {
		s, err := c.Status(c.ctx)
		if err != nil || c.dead(node) || s.Leader == node {
			return
		}
		if s.Leader != "" && s.Leader != s.Volumes[0].Primary {
			c.Kill(s.Leader)
			c.upTo(node, 5*time.Second, c.isNow(func(s *apiStatus) bool { return s.Quorum && s.Leader == node }))
			c.start(s.Leader)
		}
		c.settle(node)
	}
}

// steps are walked through, again and again, until the node has crashed.
var steps = []step{
	func(c *crashing, l *loading, n string) { c.settle(n); c.acks(l, n, 150) },
	func(c *crashing, l *loading, n string) {
		if n == "gamma" {
			c.lead(n)
		}
	},
	func(c *crashing, l *loading, n string) { c.moveTo(n, role(n)); c.acks(l, n, 150) },
	func(c *crashing, l *loading, n string) { c.moveTo(n, peer(n)); c.acks(l, n, 100) },
	func(c *crashing, l *loading, n string) { // the node has to catch up
		if c.Signal(n, syscall.SIGSTOP) == nil {
			c.upTo(n, 5*time.Second, c.isNow(func(s *apiStatus) bool { return s.Quorum && !isMember(n)(s) || n == "gamma" }))
			_ = c.Signal(n, syscall.SIGCONT)
		}
		c.settle(n)
	},
	func(c *crashing, l *loading, n string) { // the other has to catch up with the node
		c.moveTo(n, role(n))
		c.Kill(peer(n))
		c.acks(l, n, 50)
		c.start(peer(n))
		c.settle(n)
	},
	func(c *crashing, l *loading, n string) { // its disk fails
		_ = c.disks[n].Fault(disk.Fault{Kind: disk.EIO, Op: disk.Write, Glob: backing})
		c.upTo(n, 5*time.Second, func() bool { k, err := c.disks[n].Bites(disk.EIO); return n == "gamma" || err != nil || k > 0 })
		c.upTo(n, 5*time.Second, c.isNow(PrimaryIs(peer(n))))
		_ = c.disks[n].Go()
		c.settle(n)
	},
	func(c *crashing, l *loading, n string) { // it stops in order and comes back
		if c.Signal(n, syscall.SIGTERM) == nil {
			c.upTo(n, 20*time.Second, func() bool { return false })
		}
	},
}

// crashAt crashes a node at a point and has the cluster recover.
func (c *crashing) crashAt(l *loading, s site) {
	c.t.Helper()
	n, before := int64(1), c.count(s)
	if most := often[s.point]; most > 0 {
		n = 1 + c.rng.Int64N(most)
	}
	c.Kill(s.node)
	c.arm(s, n)
	c.start(s.node)
	for round := 0; ; round++ {
		i := round % len(steps)
		steps[i](c, l, s.node)
		if c.dead(s.node) {
			st, _ := c.proc(s.node).cmd.ProcessState.Sys().(syscall.WaitStatus)
			if st.Signaled() {
				c.crashed(s, before)
				cut := c.rng.IntN(2) == 0 && c.spare(s.node)
				admissions := c.admissions()
				c.revive(s, cut)
				// One whose clean-stop mark was stored before the cut has all on its disk, and rejoins where it is back before it is
				// dropped (R25).
				rejoins := s.point == failpoint.CleanIsSet
				c.healed(s, func() bool { return !cut || rejoins || s.node == "gamma" || c.admissions() > admissions })
				break
			}
			c.start(s.node) // it stopped in order; its next process is armed as well
		}
		if round == 3*len(steps) {
			c.t.Fatalf("%v: never hit", s)
		}
	}
	l.more(20)
}

func (c *crashing) healed(s site, and func() bool) {
	c.t.Helper()
	for _, o := range Nodes {
		_ = c.disks[o].Go()
		if c.dead(o) {
			c.start(o)
		}
	}
	c.until(s.String()+": healthy again", func(s *apiStatus) bool { return and() && Healthy(s) })
}

// crashFresh crashes a node in its very first start.
func crashFresh(t *testing.T, s site, seed uint64, cuts *powerCuts) {
	c := crasher(t, seed, cuts)
	c.arm(s, 1)
	c.start()
	c.upTo(s.node, patience, func() bool { return false })
	if !c.dead(s.node) {
		t.Fatalf("%v: never hit", s)
	}
	c.crashed(s, 0)
	c.revive(s, c.rng.IntN(2) == 0)
	c.until(s.String()+": healthy", Healthy)
	l := c.load()
	l.stop()
	c.same()
}

// crashSeed is what a test of fail points draws from: HACLUSTER_FAILPOINT_SEED, else another one each time.
func crashSeed(t *testing.T) uint64 {
	seed := uint64(os.Getpid())
	if s := os.Getenv("HACLUSTER_FAILPOINT_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HACLUSTER_FAILPOINT_SEED=%d", seed)
	return seed
}

// faults.md K109, K110: crash each node at each fail point, half of the time with its power cut; nothing acknowledged is
// lost, and the replicas are equal in the end. A sample of the points, unless HACLUSTER_FAILPOINTS=all.
func TestK109CrashAtFailPoints(t *testing.T) {
	t.Parallel()
	all, seed := os.Getenv("HACLUSTER_FAILPOINTS") == "all", crashSeed(t)
	steady, fresh := sites()
	if only := os.Getenv("HACLUSTER_FAILPOINT_ONLY"); only != "" {
		not := func(s site) bool { return !strings.Contains(s.String(), only) }
		steady, fresh, all = slices.DeleteFunc(steady, not), slices.DeleteFunc(fresh, not), true
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	rng.Shuffle(len(steady), func(i, j int) { steady[i], steady[j] = steady[j], steady[i] })
	rng.Shuffle(len(fresh), func(i, j int) { fresh[i], fresh[j] = fresh[j], fresh[i] })
	if !all {
		steady, fresh = steady[:times(2, 4)], fresh[:1]
	}
	var cuts powerCuts
	t.Cleanup(func() {
		t.Logf("%d power cuts took %d changes back", cuts.cuts.Load(), cuts.taken.Load())
		if len(steady) > 20 && cuts.taken.Load() == 0 && !t.Skipped() && !testing.Short() {
			t.Error("no power cut took anything back: this proves less than it says")
		}
	})
	for i, s := range fresh {
		t.Run(s.String(), func(t *testing.T) { crashFresh(t, s, seed+uint64(i), &cuts) })
	}
	// A cluster is used for some points, one after the other.
	const atATime = 12
	for i := 0; i < len(steady); i += atATime {
		some := steady[i:min(i+atATime, len(steady))]
		t.Run(fmt.Sprintf("steady-%d", i), func(t *testing.T) {
			c := crasher(t, seed+uint64(i), &cuts)
			c.start()
			c.until("healthy", Healthy)
			l := c.load()
			for _, s := range some {
				began := time.Now()
				c.crashAt(l, s)
				t.Logf("%v: %v", s, time.Since(began).Round(time.Millisecond))
			}
			l.stop()
			c.same()
		})
	}
}

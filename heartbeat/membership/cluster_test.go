package membership

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/heartbeat"
)

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *logBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *logBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// cluster is nodes in one process.
type cluster struct {
	t     *testing.T
	nodes []Node
	base  Config // what all nodes share
	log   *logBuffer
	run   map[string]*running
}

type running struct {
	*Membership
	stop context.CancelFunc
	done chan error

	mu      sync.Mutex
	changes []heartbeat.Change
}

// nodeNames in the order in which their addresses are given.
var nodeNames = []string{"alpha", "beta", "gamma"}

// memoryNodes have two links each: 10.0.0.k and 192.168.7.k.
func memoryNodes() (nodes []Node) {
	for i, name := range nodeNames {
		nodes = append(nodes, Node{Name: name, Links: []string{
			fmt.Sprintf("10.0.0.%d:7401", i+1), fmt.Sprintf("192.168.7.%d:7401", i+1),
		}})
	}
	return nodes
}

func newCluster(t *testing.T, nodes []Node, base Config) *cluster {
	c := &cluster{t: t, nodes: nodes, base: base, log: &logBuffer{}, run: map[string]*running{}}
	if c.base.Cluster == "" {
		c.base.Cluster = "shop"
	}
	c.base.Nodes = nodes
	c.base.Logger = slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return c
}

func (c *cluster) start(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.startWith(name, func(*Config) {})
	}
}

func (c *cluster) startWith(name string, change func(*Config)) *running {
	c.t.Helper()
	cfg := c.base
	cfg.Node = name
	cfg.Logger = cfg.Logger.With("node", name)
	r := &running{done: make(chan error, 1)}
	cfg.OnChange = func(ch heartbeat.Change) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changes = append(r.changes, ch)
	}
	change(&cfg)
	var err error
	if r.Membership, err = New(cfg); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- r.Run(ctx) }()
	c.run[name] = r
	return r
}

func (c *cluster) stop(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.run[name].stop()
	}
	for _, name := range names {
		if err := <-c.run[name].done; err != nil {
			c.t.Errorf("%s: Run: %v", name, err)
		}
		delete(c.run, name)
	}
}

func (c *cluster) stopAll() {
	c.t.Helper()
	for _, name := range nodeNames {
		if c.run[name] != nil {
			c.stop(name)
		}
	}
	if c.t.Failed() {
		c.t.Log("\n" + c.log.String())
	}
}

// sees is what one node knows of another, like "alive up up".
func (c *cluster) sees(from, of string) string {
	for _, p := range c.run[from].Snapshot() {
		if p.Name == of {
			s := p.State.String()
			for _, l := range p.Links {
				s += " " + l.State.String()
			}
			return s
		}
	}
	return "nothing"
}

func (c *cluster) expect(from, of, want string) {
	c.t.Helper()
	if got := c.sees(from, of); got != want {
		c.t.Errorf("%s sees %s as %q, want %q", from, of, got, want)
	}
}

func (c *cluster) expectAll(want string) {
	c.t.Helper()
	for from := range c.run {
		for of := range c.run {
			if from != of {
				c.expect(from, of, want)
			}
		}
	}
}

func (r *running) seen() []heartbeat.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]heartbeat.Change(nil), r.changes...)
}

// verdicts are the changes of a peer's verdict, oldest first, like "unknown>alive alive>dead".
func (r *running) verdicts(of string) string {
	var out []string
	for _, c := range r.seen() {
		if c.After.Name == of && c.Before.State != c.After.State {
			out = append(out, c.Before.State.String()+">"+c.After.State.String())
		}
	}
	return strings.Join(out, " ")
}

// inBubble runs a test in virtual time, on a network in memory.
func inBubble(t *testing.T, f func(c *cluster, net *Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := NewMemory()
		net.Latency = 200 * time.Microsecond
		c := newCluster(t, memoryNodes(), Config{Network: net})
		defer c.stopAll()
		f(c, net)
	})
}

func link(node, cable int) netip.AddrPort {
	return netip.MustParseAddrPort(memoryNodes()[node].Links[cable])
}

func cutBoth(n *Memory, a, b netip.AddrPort) {
	n.Cut(a, b)
	n.Cut(b, a)
}

func healBoth(n *Memory, a, b netip.AddrPort) {
	n.Heal(a, b)
	n.Heal(b, a)
}

func TestThreeNodesWithTwoLinksSeeEachOtherAlive(t *testing.T) {
	inBubble(t, func(c *cluster, _ *Memory) {
		c.start(nodeNames...)
		time.Sleep(time.Second)
		c.expectAll("alive up up")
		for _, name := range nodeNames {
			r := c.run[name]
			for _, p := range r.Snapshot() {
				for _, l := range p.Links {
					if l.RTT != 400*time.Microsecond {
						t.Errorf("%s: rtt of %s over %s = %v, want 400µs", name, p.Name, l.Address, l.RTT)
					}
				}
				if got := r.verdicts(p.Name); got != "unknown>alive" {
					t.Errorf("%s was told %q of %s", name, got, p.Name)
				}
				if r.byName[p.Name].gossipState() != heartbeat.Alive {
					t.Errorf("%s: %s is not alive in the gossip", name, p.Name)
				}
			}
		}
	})
}

// crash ends a node so that nobody hears its good-bye.
func (c *cluster) crash(n *Memory, name string) {
	c.t.Helper()
	c.isolate(n, name, (*Memory).Cut)
	c.stop(name)
	c.isolate(n, name, (*Memory).Heal)
}

// isolate applies cut or heal to all paths between a node and the others.
func (c *cluster) isolate(n *Memory, name string, do func(n *Memory, from, to netip.AddrPort)) {
	for i, node := range nodeNames {
		for j, other := range nodeNames {
			if node != name || other == name {
				continue
			}
			for cable := range 2 {
				do(n, link(i, cable), link(j, cable))
				do(n, link(j, cable), link(i, cable))
			}
		}
	}
}

func TestCutLinkIsDownWhileItsNodeStaysAlive(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		c.start(nodeNames...)
		time.Sleep(time.Second)
		cutBoth(n, link(0, 1), link(1, 1))
		time.Sleep(10 * time.Second)
		c.expect("alpha", "beta", "alive up down")
		c.expect("beta", "alpha", "alive up down")
		c.expect("alpha", "gamma", "alive up up")

		healBoth(n, link(0, 1), link(1, 1))
		cutBoth(n, link(0, 0), link(1, 0))
		time.Sleep(10 * time.Second)
		c.expect("alpha", "beta", "alive down up")
		healBoth(n, link(0, 0), link(1, 0))
		time.Sleep(time.Second)
		c.expectAll("alive up up")
		for _, name := range nodeNames {
			for _, of := range nodeNames {
				if got := c.run[name].verdicts(of); name != of && got != "unknown>alive" {
					t.Errorf("%s changed its verdict on %s: %s", name, of, got)
				}
			}
		}
		if strings.Contains(c.log.String(), "has failed, no acks") {
			t.Error("the gossip suspected a node although one of its links was up")
		}
	})
}

func TestCrashIsSeenByBothOthersAndRestartToo(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		c.start(nodeNames...)
		time.Sleep(time.Second)
		for range 3 {
			c.crash(n, "gamma")
			time.Sleep(time.Second)
			c.expect("alpha", "gamma", "dead down down")
			c.expect("beta", "gamma", "dead down down")
			c.expect("alpha", "beta", "alive up up")

			c.start("gamma")
			time.Sleep(time.Second)
			c.expectAll("alive up up")
		}
		for _, name := range []string{"alpha", "beta"} {
			got := c.run[name].verdicts("gamma")
			// A suspicion may or may not come before the death: the gossip can be faster.
			got = strings.ReplaceAll(got, "alive>suspect suspect>dead", "alive>dead")
			if want := "unknown>alive" + strings.Repeat(" alive>dead dead>alive", 3); got != want {
				t.Errorf("%s saw %q, want %q", name, got, want)
			}
		}
	})
}

func TestCrashIsSeenWithinSixBaseIntervals(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		c.start(nodeNames...)
		time.Sleep(time.Second)
		c.isolate(n, "gamma", (*Memory).Cut)
		// The last answer is up to two intervals old, the gossip gives up within five, ticks come every two.
		time.Sleep(7 * 50 * time.Millisecond)
		for _, name := range []string{"alpha", "beta"} {
			if got := c.sees(name, "gamma"); !strings.HasPrefix(got, "dead") {
				t.Errorf("%s sees gamma as %q", name, got)
			}
		}
	})
}

func TestNodeThatStopsInOrderIsDeadAtOnce(t *testing.T) {
	inBubble(t, func(c *cluster, _ *Memory) {
		c.start(nodeNames...)
		time.Sleep(time.Second)
		c.stop("gamma")
		time.Sleep(300 * time.Millisecond)
		c.expect("alpha", "gamma", "dead up up") // the links' own time-out is longer
		c.expect("beta", "gamma", "dead up up")
		c.start("gamma")
		time.Sleep(time.Second)
		c.expectAll("alive up up")
	})
}

// faults.md K114: a crash loop.
func TestCrashLoopEndsAlive(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		c.start("alpha", "beta")
		for i := range 20 {
			c.start("gamma")
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			c.crash(n, "gamma")
		}
		c.start("gamma")
		time.Sleep(10 * time.Second)
		c.expectAll("alive up up")
	})
}

// faults.md X98, X100: after a long partition the gossip has forgotten the other side; the nodes must find back.
func TestPartitionHealsWithoutRestart(t *testing.T) {
	for _, alone := range nodeNames {
		t.Run(alone, func(t *testing.T) {
			inBubble(t, func(c *cluster, n *Memory) {
				c.start(nodeNames...)
				time.Sleep(time.Second)
				c.isolate(n, alone, (*Memory).Cut)
				time.Sleep(2 * time.Minute)
				for _, other := range nodeNames {
					if other != alone {
						c.expect(alone, other, "dead down down")
						c.expect(other, alone, "dead down down")
					}
				}
				c.isolate(n, alone, (*Memory).Heal)
				time.Sleep(500 * time.Millisecond) // the pause between joins has grown to five seconds
				c.expectAll("alive up up")
				for _, other := range nodeNames {
					if other != alone && c.run[other].byName[alone].gossipState() != heartbeat.Alive {
						t.Errorf("%s did not join %s again", other, alone)
					}
				}
			})
		})
	}
}

// faults.md X101, X102: the path between two nodes is cut, in one or both directions, the third reaches both.
func TestPairThatCannotTalkKnowsOfEachOtherByTheThird(t *testing.T) {
	for name, cut := range map[string]func(n *Memory, a, b netip.AddrPort){"both ways": cutBoth, "one way": (*Memory).Cut} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(c *cluster, n *Memory) {
				c.start(nodeNames...)
				time.Sleep(time.Second)
				for cable := range 2 {
					cut(n, link(0, cable), link(1, cable))
				}
				// Now and then a suspicion runs out and is refuted by the third node a round trip later: dead for 0.2 ms. Both
				// begin with the timers, at multiples of 25 ms, so the look is taken between these.
				time.Sleep(10*time.Second + 10*time.Millisecond)
				c.expect("alpha", "beta", "alive down down")
				c.expect("beta", "alpha", "alive down down")
				c.expect("alpha", "gamma", "alive up up")
				c.expect("gamma", "beta", "alive up up")
			})
		})
	}
}

// faults.md X104: a slow path is no dead one.
func TestHalfASecondOfDelayIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemory()
		n.Latency = 500 * time.Millisecond
		c := newCluster(t, memoryNodes(), Config{Network: n})
		defer c.stopAll()
		c.start(nodeNames...)
		time.Sleep(3 * time.Second)
		c.expectAll("alive up up")
		before := c.run["alpha"].verdicts("beta") // until the first answer came, there was only hearsay
		time.Sleep(time.Minute)
		c.expectAll("alive up up")
		if after := c.run["alpha"].verdicts("beta"); after != before {
			t.Errorf("verdicts went on changing: %s", strings.TrimPrefix(after, before))
		}
	})
}

// A node that holds its sockets but reads nothing (stopped, hung) holds up nobody.
func TestNodeThatDoesNotReadHoldsUpNobody(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		var hung []Link
		for cable := range 2 {
			l, err := n.Open(link(2, cable))
			if err != nil {
				t.Fatal(err)
			}
			hung = append(hung, l)
		}
		c.start("alpha", "beta")
		time.Sleep(time.Minute)
		c.expect("alpha", "beta", "alive up up")
		c.expect("beta", "alpha", "alive up up")
		c.expect("alpha", "gamma", "dead down down")
		c.stop("alpha", "beta")
		for _, l := range hung {
			l.Close()
		}
	})
}

// faults.md G39.
func TestAnotherClusterIsIgnored(t *testing.T) {
	inBubble(t, func(c *cluster, _ *Memory) {
		c.start("alpha", "beta")
		c.startWith("gamma", func(cfg *Config) { cfg.Cluster = "other" })
		time.Sleep(25 * time.Second)
		c.expect("alpha", "beta", "alive up up")
		c.expect("alpha", "gamma", "dead down down")
		c.expect("gamma", "alpha", "dead down down")
		if got := c.run["gamma"].verdicts("alpha"); got != "unknown>dead" {
			t.Errorf("gamma's view of alpha went %s", got)
		}
		if n := c.run["alpha"].Counters().Foreign; n == 0 {
			t.Error("alpha counted no foreign packets")
		}
		if n := strings.Count(c.log.String(), `node=alpha why="heartbeat packet of another cluster"`); n < 1 || n > 3 {
			t.Errorf("alpha logged the other cluster %d times in 25 s, want once every ten", n)
		}
	})
}

func TestNodeThatIsNotConfiguredIsIgnored(t *testing.T) {
	inBubble(t, func(c *cluster, _ *Memory) {
		two := c.base.Nodes[:2]
		for _, name := range []string{"alpha", "beta"} {
			c.startWith(name, func(cfg *Config) { cfg.Nodes = two })
		}
		c.start("gamma") // knows the others, which do not know it
		time.Sleep(10 * time.Second)
		c.expect("alpha", "beta", "alive up up")
		c.expect("alpha", "gamma", "nothing")
		c.expect("gamma", "alpha", "dead down down")
		if got := c.run["gamma"].verdicts("alpha"); got != "unknown>dead" {
			t.Errorf("gamma's view of alpha went %s: it was shown who is there", got)
		}
		if n := c.run["alpha"].Counters().Foreign; n == 0 {
			t.Error("alpha counted no packets of a stranger")
		}
		if err := (configured{c.run["alpha"].Membership}).NotifyAlive(gossipNode("gamma")); err == nil {
			t.Error("the gossip's table takes in a stranger")
		}
	})
}

// The addresses of beta and gamma are exchanged in alpha's file: the wrong one must not answer for the other.
func TestNodeAtTheWrongAddressIsNotTakenForTheRightOne(t *testing.T) {
	inBubble(t, func(c *cluster, _ *Memory) {
		c.start("beta", "gamma")
		c.startWith("alpha", func(cfg *Config) {
			n := memoryNodes()
			n[1].Links, n[2].Links = n[2].Links, n[1].Links
			cfg.Nodes = n
		})
		time.Sleep(10 * time.Second)
		for _, of := range []string{"beta", "gamma"} {
			if got := c.sees("alpha", of); !strings.HasSuffix(got, "down down") {
				t.Errorf("alpha sees %s as %q", of, got)
			}
		}
		c.expect("beta", "gamma", "alive up up")
	})
}

func TestKeysAdmitOnlyWhoHasOne(t *testing.T) {
	old, fresh, wrong := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 32)
	keys := func(k ...[]byte) func(*Config) { return func(cfg *Config) { cfg.Keys = k } }
	t.Run("one key", func(t *testing.T) {
		inBubble(t, func(c *cluster, _ *Memory) {
			for _, name := range nodeNames {
				c.startWith(name, keys(old))
			}
			time.Sleep(time.Second)
			c.expectAll("alive up up")
			for from, r := range c.run {
				for _, remote := range r.remotes {
					if remote.gossipState() != heartbeat.Alive {
						t.Errorf("%s: the gossip with %s does not work", from, remote.name)
					}
				}
			}
		})
	})
	t.Run("in the middle of a rotation", func(t *testing.T) {
		inBubble(t, func(c *cluster, _ *Memory) {
			c.startWith("alpha", keys(old, fresh))
			c.startWith("beta", keys(fresh, old))
			c.startWith("gamma", keys(fresh, old))
			time.Sleep(time.Second)
			c.expectAll("alive up up")
		})
	})
	for name, change := range map[string]func(*Config){"wrong key": keys(wrong), "no key": keys()} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(c *cluster, _ *Memory) {
				c.startWith("alpha", keys(old))
				c.startWith("beta", keys(old))
				c.startWith("gamma", change)
				time.Sleep(20 * time.Second)
				c.expect("alpha", "beta", "alive up up")
				c.expect("alpha", "gamma", "dead down down")
				c.expect("gamma", "alpha", "dead down down")
			})
		})
	}
}

func TestChangesAreToldWhileTheCallbackIsSlow(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		c.start("beta", "gamma")
		var told []string
		c.startWith("alpha", func(cfg *Config) {
			cfg.OnChange = func(ch heartbeat.Change) {
				told = append(told, ch.After.Name+" "+ch.Before.State.String()+">"+ch.After.State.String())
				time.Sleep(20 * time.Second)
			}
		})
		time.Sleep(time.Second)
		for range 5 { // all of it while the first call lasts
			c.isolate(n, "alpha", (*Memory).Cut)
			time.Sleep(time.Second)
			c.isolate(n, "alpha", (*Memory).Heal)
			time.Sleep(time.Second)
		}
		c.expect("alpha", "beta", "alive up up")
		c.isolate(n, "alpha", (*Memory).Cut)
		time.Sleep(2 * time.Minute)
		c.stop("alpha")
		last := map[string]string{}
		for _, s := range told {
			name, what, _ := strings.Cut(s, " ")
			last[name] = what
		}
		for _, name := range []string{"beta", "gamma"} {
			if !strings.HasSuffix(last[name], ">dead") {
				t.Errorf("last told of %s: %q, but it is dead; all: %q", name, last[name], told)
			}
		}
		if len(told) > 8 {
			t.Errorf("%d calls; changes did not merge: %q", len(told), told)
		}
	})
}

package membership

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// holes is the real network, of which addresses can be made to swallow everything, and links to break.
type holes struct {
	Sockets
	mu    sync.Mutex
	black map[netip.AddrPort]*atomic.Bool
	links map[netip.AddrPort]Link
}

type holedLink struct {
	Link
	h     *holes
	black *atomic.Bool
}

func newHoles() *holes {
	return &holes{black: map[netip.AddrPort]*atomic.Bool{}, links: map[netip.AddrPort]Link{}}
}

func (h *holes) hole(addr netip.AddrPort) *atomic.Bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.black[addr] == nil {
		h.black[addr] = &atomic.Bool{}
	}
	return h.black[addr]
}

func (h *holes) Open(addr netip.AddrPort) (Link, error) {
	l, err := h.Sockets.Open(addr)
	if err != nil {
		return nil, err
	}
	black := h.hole(addr)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.links[addr] = l
	return &holedLink{Link: l, h: h, black: black}, nil
}

func (h *holes) breakLink(addr netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.links[addr].Close()
}

func (l *holedLink) Send(p []byte, to netip.AddrPort) error {
	if l.black.Load() || l.h.hole(to).Load() {
		return nil
	}
	return l.Link.Send(p, to)
}

// realCluster are three nodes with two links each on loopback addresses. The base interval is long, so that a busy
// machine does not make a node look dead.
func realCluster(t *testing.T) (*cluster, *holes, [][]netip.AddrPort) {
	t.Parallel() // they mostly wait
	addrs := loopback(6)
	var nodes []Node
	var links [][]netip.AddrPort
	for i, name := range nodeNames {
		l := addrs[2*i : 2*i+2]
		links = append(links, l)
		nodes = append(nodes, Node{Name: name, Links: []string{l[0].String(), l[1].String()}})
	}
	h := newHoles()
	return newCluster(t, nodes, Config{Network: h, Base: 100 * time.Millisecond}), h, links
}

// until waits for something to become true; how long that takes is not what these tests are about.
func (c *cluster) until(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			for from := range c.run {
				for _, of := range nodeNames {
					c.t.Logf("%s sees %s as %s", from, of, c.sees(from, of))
				}
			}
			c.t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (c *cluster) allSee(want string) bool {
	for from := range c.run {
		for of := range c.run {
			if from != of && c.sees(from, of) != want {
				return false
			}
		}
	}
	return true
}

func TestRealNodesThroughCutCrashAndRestart(t *testing.T) {
	c, h, links := realCluster(t)
	defer c.stopAll()
	c.start(nodeNames...)
	c.until("all alive on both links", func() bool { return c.allSee("alive up up") })

	// One cable of beta swallows everything.
	h.hole(links[1][1]).Store(true)
	c.until("beta's second link is down", func() bool {
		return c.sees("alpha", "beta") == "alive up down" && c.sees("gamma", "beta") == "alive up down"
	})
	h.hole(links[1][1]).Store(false)
	c.until("all alive again", func() bool { return c.allSee("alive up up") })

	// gamma crashes: nothing leaves it any more.
	for _, l := range links[2] {
		h.hole(l).Store(true)
	}
	c.stop("gamma")
	c.until("gamma is dead to both", func() bool {
		return c.sees("alpha", "gamma") == "dead down down" && c.sees("beta", "gamma") == "dead down down"
	})
	for _, l := range links[2] {
		h.hole(l).Store(false)
	}
	c.start("gamma")
	c.until("gamma is back", func() bool { return c.allSee("alive up up") })
	for _, name := range []string{"alpha", "beta"} {
		if n := c.run[name].Counters().Copies; n == 0 {
			t.Errorf("%s: no packet came over both links", name)
		}
		got := c.run[name].verdicts("gamma")
		if !strings.HasPrefix(got, "unknown>alive ") || !strings.Contains(got, ">dead dead>alive") {
			t.Errorf("%s saw gamma go %s", name, got)
		}
	}
}

func TestBrokenSocketIsOpenedAnew(t *testing.T) {
	c, h, links := realCluster(t)
	defer c.stopAll()
	c.start("alpha", "beta")
	c.until("both alive", func() bool { return c.allSee("alive up up") })
	h.breakLink(links[0][0])
	c.until("the log tells of it", func() bool { return strings.Contains(c.log.String(), "heartbeat link broke") })
	c.until("the link is open again", func() bool { return strings.Contains(c.log.String(), "heartbeat link is open") })
	c.until("both alive on both links", func() bool { return c.allSee("alive up up") })
}

func TestGarbageOnALinkHarmsNobody(t *testing.T) {
	c, _, links := realCluster(t)
	defer c.stopAll()
	c.start("alpha", "beta")
	c.until("both alive", func() bool { return c.allSee("alive up up") })

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	target := net.UDPAddrFromAddrPort(links[0][0])
	udp, err := net.DialUDP("udp", nil, target)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	codec := testCodec(t, "shop")
	for i := range 300 {
		b := make([]byte, r.IntN(3000))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		if i%3 == 0 { // so that it gets as far as memberlist
			b = codec.encodeGossip(r.Uint64(), append([]byte("\xf4\x04shop"), b[:len(b)%1000]...))
		}
		udp.Write(b)
	}
	var open []net.Conn
	for i := range 3 * maxStreams {
		conn, err := net.Dial("tcp", links[0][0].String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		switch i % 3 {
		case 0: // silent
		case 1:
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"+strings.Repeat("x", 100))
		case 2: // greets well, then talks nonsense
			conn.Write(codec.encodeProbe(frameStream, probe{from: idOf("beta"), to: idOf("alpha")}))
			conn.Write([]byte("\xf4\x04shop\x06\xff\xff\xff\xff"))
		}
	}
	alpha := c.run["alpha"]
	// Of a burst, the kernel keeps what the socket's buffer holds.
	c.until("garbage was counted", func() bool { return alpha.Counters().Garbage >= 10 })
	c.until("silent streams were closed", func() bool {
		alpha.transport.mu.Lock()
		defer alpha.transport.mu.Unlock()
		return len(alpha.transport.open) == 0
	})
	for _, conn := range open {
		conn.Close()
	}
	c.until("both alive", func() bool { return c.allSee("alive up up") })
	// However many silent callers there are, a newcomer gets in.
	flood := make(chan struct{})
	var flooder sync.WaitGroup
	flooder.Go(func() {
		var held []net.Conn
		defer func() {
			for _, conn := range held {
				conn.Close()
			}
		}()
		for {
			select {
			case <-flood:
				return
			case <-time.After(time.Millisecond):
			}
			if conn, err := net.Dial("tcp", links[0][0].String()); err == nil {
				held = append(held, conn)
			}
		}
	})
	defer flooder.Wait()
	defer close(flood)
	c.start("gamma")
	c.until("all alive", func() bool { return c.allSee("alive up up") })
	if strings.Contains(c.log.String(), "panic") {
		t.Error("a panic was logged")
	}
}

func TestLinkInUseIsRefusedAtTheStart(t *testing.T) {
	c, h, links := realCluster(t)
	defer c.stopAll()
	other, err := h.Open(links[0][1])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	cfg := c.base
	cfg.Node = "alpha"
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), links[0][1].String()) || !strings.Contains(err.Error(), "running already") {
		t.Fatalf("err = %v", err)
	}
	// The first link, which could be opened, was given back.
	l, err := h.Open(links[0][0])
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("second Run: %v", err)
	}
}

// later is a network on which an address cannot be opened at first, as when its interface comes up late.
type later struct {
	Network
	addr   netip.AddrPort
	absent atomic.Bool
}

func (l *later) Open(addr netip.AddrPort) (Link, error) {
	if addr == l.addr && l.absent.Load() {
		return nil, errors.New("cannot assign requested address")
	}
	return l.Network.Open(addr)
}

func TestNodeStartsWithTheLinksThatItHas(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		late := &later{Network: n, addr: link(0, 1)}
		late.absent.Store(true)
		c.start("beta")
		c.startWith("alpha", func(cfg *Config) { cfg.Network = late })
		time.Sleep(10 * time.Second)
		c.expectAll("alive up down")
		late.absent.Store(false)
		time.Sleep(10 * time.Second)
		c.expectAll("alive up up")
	})
}

func TestNodeWithoutAnyLinkDoesNotStart(t *testing.T) {
	inBubble(t, func(c *cluster, n *Memory) {
		late := &later{Network: n, addr: netip.MustParseAddrPort("10.0.0.9:1")}
		late.absent.Store(true)
		cfg := c.base
		cfg.Node, cfg.Network = "solo", late
		cfg.Nodes = append(memoryNodes(), Node{Name: "solo", Links: []string{"10.0.0.9:1"}})
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot assign requested address") {
			t.Errorf("Run: %v", err)
		}
	})
}

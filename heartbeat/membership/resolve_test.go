package membership

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// names is a resolver whose answers change.
type names struct {
	mu    sync.Mutex
	addrs map[string][]netip.AddrPort
	asked int
}

func (n *names) set(address string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addrs == nil {
		n.addrs = map[string][]netip.AddrPort{}
	}
	n.addrs[address] = nil
	for _, a := range addrs {
		n.addrs[address] = append(n.addrs[address], netip.MustParseAddrPort(a))
	}
}

func (n *names) resolve(_ context.Context, address string) ([]netip.AddrPort, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if len(n.addrs[address]) == 0 {
		return nil, errors.New("no such host")
	}
	return append([]netip.AddrPort(nil), n.addrs[address]...), nil
}

// twoByName are alpha, by address, and beta, by name.
func twoByName(t *testing.T, f func(c *cluster, n *Memory, dns *names)) {
	synctest.Test(t, func(t *testing.T) {
		n, dns := NewMemory(), &names{}
		c := newCluster(t, []Node{
			{Name: "alpha", Links: []string{"10.0.0.1:7401"}}, {Name: "beta", Links: []string{"beta.example:7401"}},
		}, Config{Network: n, Resolve: dns.resolve})
		defer c.stopAll()
		f(c, n, dns)
	})
}

// faults.md C79, all three parts.
func TestPeerNameThatDoesNotResolveIsTriedAgain(t *testing.T) {
	twoByName(t, func(c *cluster, _ *Memory, dns *names) {
		c.start("alpha")
		time.Sleep(time.Minute)
		c.expect("alpha", "beta", "dead down")
		if n := strings.Count(c.log.String(), "does not resolve"); n != 1 {
			t.Errorf("logged %d times in a minute, want once", n)
		}
		dns.mu.Lock()
		asked := dns.asked
		dns.mu.Unlock()
		if asked < 5 || asked > 30 {
			t.Errorf("asked %d times in a minute", asked)
		}
		dns.set("beta.example:7401", "10.0.0.2:7401")
		c.start("beta")
		time.Sleep(15 * time.Second)
		c.expectAll("alive up")
	})
}

func TestPeerNameThatMovesIsFollowed(t *testing.T) {
	twoByName(t, func(c *cluster, _ *Memory, dns *names) {
		dns.set("beta.example:7401", "10.0.0.2:7401")
		c.start("alpha", "beta")
		time.Sleep(time.Second)
		c.expectAll("alive up")
		c.stop("beta")
		dns.set("beta.example:7401", "10.0.0.99:7401")
		c.start("beta")
		time.Sleep(15 * time.Second)
		c.expectAll("alive up")
	})
}

func TestPeerNameWithTwoAddressesFindsTheOneThatAnswers(t *testing.T) {
	twoByName(t, func(c *cluster, n *Memory, dns *names) {
		dns.set("beta.example:7401", "10.0.0.2:7401")
		c.start("beta")
		synctest.Wait()
		dns.set("beta.example:7401", "10.0.0.1:9", "10.0.0.2:7401", "10.0.0.3:7401") // the first and the last are nobody's
		c.start("alpha")
		time.Sleep(2 * time.Second)
		c.expectAll("alive up")
		before := c.run["alpha"].verdicts("beta")
		time.Sleep(time.Minute)
		c.expectAll("alive up")
		if got := c.run["alpha"].verdicts("beta"); got != before {
			t.Errorf("the address that works was left: %s", strings.TrimPrefix(got, before))
		}
	})
}

func TestBrokenNameServerDoesNotBreakTheHeartbeat(t *testing.T) {
	twoByName(t, func(c *cluster, _ *Memory, dns *names) {
		dns.set("beta.example:7401", "10.0.0.2:7401")
		c.start("alpha", "beta")
		time.Sleep(time.Second)
		dns.set("beta.example:7401")
		time.Sleep(time.Minute)
		c.expectAll("alive up")
	})
}

func TestSystemResolverKnowsLocalhost(t *testing.T) {
	addrs, err := resolve(t.Context(), "localhost:7401")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if !a.Addr().IsLoopback() || a.Port() != 7401 {
			t.Errorf("localhost:7401 is %v", a)
		}
	}
	for _, bad := range []string{"localhost", "localhost:x", "localhost:70000"} {
		if _, err := resolve(t.Context(), bad); err == nil {
			t.Errorf("%q resolves", bad)
		}
	}
}

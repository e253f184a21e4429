package effect

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// network is three machines on one switch, each a namespace: two servers and a client.
type network struct{ prefix string }

func newNetwork(t *testing.T) network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n := network{fmt.Sprintf("hat%d", os.Getpid())}
	if out, err := exec.Command("ip", "netns", "add", n.name("sw")).CombinedOutput(); err != nil {
		t.Skipf("no network namespace can be made: %v: %s", err, out)
	}
	t.Cleanup(func() {
		for _, m := range []string{"sw", "alpha", "beta", "client"} {
			_ = exec.Command("ip", "netns", "del", n.name(m)).Run()
		}
	})
	n.ip(t, "sw", "link add br0 type bridge")
	n.ip(t, "sw", "link set br0 up")
	for i, m := range []string{"alpha", "beta", "client"} {
		if out, err := exec.Command("ip", "netns", "add", n.name(m)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		n.ip(t, "sw", fmt.Sprintf("link add p%d type veth peer name eth0 netns %s", i, n.name(m)))
		n.ip(t, "sw", fmt.Sprintf("link set p%d master br0 up", i))
		n.ip(t, m, fmt.Sprintf("addr add 10.77.0.%d/24 dev eth0", i+1))
		n.ip(t, m, fmt.Sprintf("addr add fd77::%d/64 dev eth0 nodad", i+1))
		n.ip(t, m, "link set eth0 up")
		n.ip(t, m, "link set lo up")
	}
	return n
}

func (n network) name(machine string) string { return n.prefix + machine }

func (n network) ip(t *testing.T, machine, args string) string {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"-n", n.name(machine)}, strings.Fields(args)...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("on %s: ip %s: %v: %s", machine, args, err, out)
	}
	return string(out)
}

// on runs f on a machine.
func (n network) on(t *testing.T, machine string, f func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+n.name(machine), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (n network) mac(t *testing.T, machine string) string {
	t.Helper()
	f := strings.Fields(n.ip(t, machine, "-o link show eth0"))
	for i := range f {
		if f[i] == "link/ether" {
			return f[i+1]
		}
	}
	t.Fatalf("no hardware address: %v", f)
	return ""
}

// reaches pings the address from the client.
func (n network) reaches(ip string) bool {
	return exec.Command("ip", "netns", "exec", n.name("client"), "ping", "-c", "1", "-W", "1", "-i", "0.2", ip).Run() == nil
}

// whom is the hardware address that the client has for the address.
func (n network) whom(t *testing.T, ip string) string {
	t.Helper()
	f := strings.Fields(n.ip(t, "client", "neigh show "+ip))
	for i := range f {
		if f[i] == "lladdr" {
			return f[i+1]
		}
	}
	return ""
}

func TestAddressMovesBetweenServers(t *testing.T) {
	n := newNetwork(t)
	if _, err := exec.LookPath("ping"); err != nil {
		t.Skip("ping is not installed (Debian: iputils-ping)")
	}
	for _, prefix := range []string{"10.77.0.100/24", "fd77::100/64"} {
		ip := netip.MustParsePrefix(prefix).Addr().String()
		alpha, beta := &address{prefix: netip.MustParsePrefix(prefix), link: "eth0", log: slog.Default()}, &address{prefix: netip.MustParsePrefix(prefix), link: "eth0", log: slog.Default()}
		if err := n.on(t, "alpha", func() error { return alpha.Monitor(t.Context()) }); err == nil {
			t.Errorf("%s: monitored as well before the start", ip)
		}
		if err := n.on(t, "alpha", func() error { return alpha.Start(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		if !n.reaches(ip) {
			t.Fatalf("%s is not reached at alpha: %s", ip, n.ip(t, "alpha", "addr show eth0"))
		}
		if got := n.whom(t, ip); got != n.mac(t, "alpha") {
			t.Fatalf("the client knows %q for %s", got, ip)
		}
		if err := n.on(t, "alpha", func() error { return alpha.Monitor(t.Context()) }); err != nil {
			t.Error(err)
		}

		// As long as alpha answers, beta does not take it.
		err := n.on(t, "beta", func() error { return beta.Start(t.Context()) })
		if err == nil || !strings.Contains(err.Error(), "in use on this network by "+n.mac(t, "alpha")) {
			t.Fatalf("a duplicate %s: %v", ip, err)
		}

		if err := n.on(t, "alpha", func() error { return alpha.Stop(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		if n.reaches(ip) {
			t.Fatalf("%s is reached after the stop", ip)
		}
		n.ip(t, "client", "neigh replace "+ip+" lladdr "+n.mac(t, "alpha")+" dev eth0 nud stale")
		if err := n.on(t, "beta", func() error { return beta.Start(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		// The announcement alone corrects what the client remembers.
		await(t, "the client knows beta for "+ip, func() bool { return n.whom(t, ip) == n.mac(t, "beta") })
		if !n.reaches(ip) {
			t.Fatalf("%s is not reached at beta", ip)
		}
		if err := n.on(t, "beta", func() error { return beta.Kill(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		if err := n.on(t, "beta", func() error { return beta.Stop(t.Context()) }); err != nil {
			t.Errorf("a stop of what is stopped: %v", err)
		}
	}
}

func TestAddressNeedsAnInterfaceThatIsUp(t *testing.T) {
	n := newNetwork(t)
	a := &address{prefix: netip.MustParsePrefix("10.77.0.100/24"), link: "eth9", log: slog.Default()}
	if err := n.on(t, "alpha", func() error { return a.Start(t.Context()) }); err == nil || !strings.Contains(err.Error(), "interface eth9") {
		t.Error(err)
	}
	if err := n.on(t, "alpha", func() error { return a.Stop(t.Context()) }); err != nil {
		t.Errorf("stop without the interface: %v", err)
	}
	a.link = "eth0"
	n.ip(t, "alpha", "link set eth0 down")
	if err := n.on(t, "alpha", func() error { return a.Start(t.Context()) }); err == nil || !strings.Contains(err.Error(), "is down") {
		t.Error(err)
	}
}

// On a loopback interface there are no neighbours to ask.
func TestAddressOnLoopback(t *testing.T) {
	n := newNetwork(t)
	a := &address{prefix: netip.MustParsePrefix("127.7.7.7/8"), link: "lo", log: slog.Default()}
	began := time.Now()
	if err := n.on(t, "alpha", func() error { return a.Start(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > probes*probePause {
		t.Errorf("that took %v", took)
	}
	if err := n.on(t, "alpha", func() error { return a.Stop(t.Context()) }); err != nil {
		t.Fatal(err)
	}
}

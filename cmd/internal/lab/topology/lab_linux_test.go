package topology

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// realLab makes a lab without daemons, or skips the test where that is not permitted.
func realLab(t *testing.T) *Lab {
	t.Helper()
	if testing.Short() {
		t.Skip("network namespaces take their time: not with -short")
	}
	if err := Permitted(); err != nil {
		t.Skip(err)
	}
	t.Setenv("HACLUSTER_LABS", t.TempDir())
	l, err := Up(fmt.Sprintf("t%d", os.Getpid()), Config{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// inNetwork runs f on a thread that is in a node's network namespace meanwhile: sockets that it makes belong there.
func inNetwork(t *testing.T, l *Lab, node string, f func() error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	away, err := os.Open(l.netns(node))
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	err = f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err) // this thread belongs to the lab now, which will be taken down with all in it
	}
	if err != nil {
		t.Fatal(err)
	}
}

const patience = 20 * time.Second

// cable sends datagrams between two nodes on one network.
type cable struct {
	t        *testing.T
	l        *Lab
	from, to string
	out, in  net.Conn
}

func newCable(t *testing.T, l *Lab, from, to, network string) *cable {
	t.Helper()
	s, err := l.State()
	if err != nil {
		t.Fatal(err)
	}
	addr := func(name string) *net.UDPAddr {
		n, err := s.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		return &net.UDPAddr{IP: net.ParseIP(s.Address(n, network)), Port: 9999}
	}
	c := &cable{t: t, l: l, from: from, to: to}
	open := func(here, there string) (conn net.Conn) {
		inNetwork(t, l, here, func() (err error) {
			conn, err = net.DialUDP("udp", addr(here), addr(there))
			return err
		})
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	c.out, c.in = open(from, to), open(to, from)
	return c
}

// arrives sends a datagram, which has to come out at the other end.
func (c *cable) arrives(size int) {
	c.t.Helper()
	if _, err := c.out.Write(make([]byte, size)); err != nil {
		c.t.Fatal(err)
	}
	if err := c.in.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if n, err := c.in.Read(make([]byte, 64<<10)); err != nil || n != size {
		c.t.Errorf("%s to %s: %d bytes of %d arrived, %v", c.from, c.to, n, size, err)
	}
}

// isLost sends a datagram, which has to be counted as lost.
func (c *cable) isLost(size int) {
	c.t.Helper()
	before, err := c.l.Dropped(c.from, c.to)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.out.Write(make([]byte, size)); err != nil {
		c.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		n, err := c.l.Dropped(c.from, c.to)
		if err != nil {
			c.t.Fatal(err)
		}
		if n == before+1 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s to %s: %d packets were lost, %d before", c.from, c.to, n, before)
		}
	}
}

func TestCablesAndBootIDs(t *testing.T) {
	l := realLab(t)
	t.Run("cables", func(t *testing.T) { cablesAndCuts(t, l) })
	t.Run("boot ids", func(t *testing.T) { bootIDsAreTheNodes(t, l) })
}

func cablesAndCuts(t *testing.T, l *Lab) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	repl, hb := newCable(t, l, "alpha", "beta", Replication), newCable(t, l, "alpha", "beta", Heartbeat1)
	back := newCable(t, l, "beta", "alpha", Heartbeat2)
	repl.arrives(100)
	must(l.Add(Cut("alpha", "beta", Replication)...))
	repl.isLost(100)
	hb.arrives(100)
	must(l.Heal())
	must(l.Add(OneWay("alpha", "beta", "")...))
	hb.isLost(100)
	back.arrives(100)
	must(l.Heal())
	must(l.Add(Rule{From: "alpha", To: "beta", Percent: 100, Longer: 500}))
	repl.arrives(100)
	repl.isLost(1000)
	must(l.Heal())
	repl.arrives(1000)
}

// A lab is found and removed whatever became of the program that made it, or of its folder.
func TestLeftoversAreFoundAndRemoved(t *testing.T) {
	l := realLab(t)
	sleeper := l.Network("alpha", "sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleeper.Wait() }()
	if err := l.Pause("alpha"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for frozen := false; !frozen; {
		var err error
		if frozen, err = l.Frozen("alpha"); err != nil || time.Now().After(deadline) {
			t.Fatalf("it is not paused: %v", err)
		}
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		t.Fatal(err)
	}
	labs, err := Labs()
	if err != nil || !slices.Contains(labs, l.Name) {
		t.Fatalf("%v does not contain %s: %v", labs, l.Name, err)
	}
	again, err := Find(l.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Down(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the paused process ended with %v", err)
	}
	if left := l.namespaces(); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// Two processes see two boot ids, and this machine keeps its own.
func bootIDsAreTheNodes(t *testing.T, l *Lab) {
	const file = "/proc/sys/kernel/random/boot_id"
	ours, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{string(ours): true}
	for _, n := range []string{"alpha", "beta"} {
		b, err := l.inside(n, "cat", file).Output()
		if err != nil || seen[string(b)] || len(b) != len(ours) {
			t.Errorf("%s reads %q, %v", n, b, err)
		}
		seen[string(b)] = true
	}
	if now, _ := os.ReadFile(file); string(now) != string(ours) {
		t.Error("the machine's own boot id changed")
	}
}

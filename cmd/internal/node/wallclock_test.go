package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
)

// trio is a cluster of three nodes in this process, each with its own folder and address.
type trio struct {
	t     *testing.T
	dir   string
	nodes []*Node
	stops []context.CancelFunc // each node's own
}

// trioConfig writes the configuration of three nodes below dir, whose volume has a replica in alpha and one in beta. more stands in
// the volume's block.
func trioConfig(t *testing.T, dir, size, alpha, beta, more string) (file string) {
	t.Helper()
	text := fmt.Sprintf("cluster \"c\" {\n  rto = \"10s\"\n  data_dir = \"%s/${node.name}\"\n}\n", dir)
	for i, name := range []string{"alpha", "beta", "gamma"} {
		role := ""
		if name == "gamma" {
			role = "role = \"witness\"\n  "
		}
		text += fmt.Sprintf("node %q {\n  %saddress = %q\n}\n", name, role, freeAddress(t, i+1))
	}
	text += fmt.Sprintf("volume \"vol\" {\n  size = %q\n  mode = \"sync\"\n  replica \"alpha\" { device = %q }\n  replica \"beta\" { device = %q }\n"+
		"  export {\n    nbd = [\"unix://%s/${node.name}.sock\"]\n    attach = \"none\"\n  }\n%s}\n", size, alpha, beta, dir, more)
	file = filepath.Join(dir, "cluster.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startTrio founds a cluster with a target that a busy machine does not miss, and waits until its volume is healthy.
// more stands in the volume's block.
func startTrio(t *testing.T, more string) *trio {
	t.Helper()
	dir, err := os.MkdirTemp("", "hac") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	file := trioConfig(t, dir, "8MiB", filepath.Join(dir, "alpha.img"), filepath.Join(dir, "beta.img"), more)
	c := &trio{t: t, dir: dir}
	ctx, stop := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	t.Cleanup(func() {
		stop()
		runs.Wait()
		os.RemoveAll(dir)
	})
	for _, name := range []string{"alpha", "beta", "gamma"} {
		cfg, err := config.Load(file, config.Options{Node: name, Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(cfg, slog.New(slog.DiscardHandler), Env{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(ctx)
		c.nodes, c.stops = append(c.nodes, n), append(c.stops, stop)
		runs.Go(func() {
			if err := n.Run(ctx); err != nil {
				t.Errorf("%s ended: %v", name, err)
			}
		})
	}
	c.until("healthy", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == api.VolumeHealthy
	})
	return c
}

// freeAddress is one on the i-th loopback address that nobody listens on.
func freeAddress(t *testing.T, i int) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.82.0.%d:0", i))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (c *trio) until(what string, want func(*api.Status) bool) *api.Status {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for {
		s, err := c.nodes[0].Status(ctx, "")
		if err == nil && want(s) {
			return s
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("waiting until %s: %+v, %v", what, s, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// faults.md T82: the time of day steps, forwards and back, by an hour and by ten years, and runs backwards, under write
// load. No lease ends, nobody is dropped, the role stays: only the stamps of events show it.
func TestT82StepsOfTheTimeOfDayChangeNothingButStamps(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole cluster takes its time: not with -short")
	}
	var offset, backwards atomic.Int64 // added; and how much each reading takes away
	start := time.Now()
	t.Cleanup(func() { wallClock = time.Now }) // when no node runs any more
	wallClock = func() time.Time {
		return start.Add(time.Since(start)).Add(time.Duration(offset.Add(-backwards.Load())))
	}
	c := startTrio(t, "")
	t.Cleanup(func() {
		offset.Store(0)
		backwards.Store(0)
	})
	first := c.until("somebody leads", func(s *api.Status) bool { return s.Leader != "" })
	client, err := nbdclient.Dial(t.Context(), fmt.Sprintf("nbd+unix:///vol?socket=%s/%s.sock", c.dir, first.Volumes[0].Primary))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	write := func() {
		t.Helper()
		for i := range 20 {
			if _, err := client.WriteAt(make([]byte, 4096), int64(i)*4096); err != nil {
				t.Fatal(err)
			}
			if err := client.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	const year = 365 * 24 * time.Hour
	steps := func() (elections uint64) {
		offset.Store(0)
		backwards.Store(0)
		before := c.nodes[0].raftIfOpen().Term()
		for _, step := range []time.Duration{time.Hour, -2 * time.Hour, 10 * year, -20 * year, -1} {
			if step == -1 {
				backwards.Store(int64(time.Minute))
			} else {
				offset.Add(int64(step))
			}
			for _, n := range c.nodes {
				n.lease.kickNow()
			}
			write()
			for _, n := range c.nodes {
				n.events.add("step", "", step.String())
			}
			s := c.until("a leader answers", func(s *api.Status) bool { return s.Quorum })
			v := s.Volumes[0]
			if v.State != api.VolumeHealthy || v.Epoch != 1 || v.Primary != first.Volumes[0].Primary || len(v.InSync) != 2 {
				t.Errorf("after a step of %v: %+v", step, v)
			}
			for _, n := range s.Nodes[:2] {
				if n.LeaseMs <= 0 {
					t.Errorf("after a step of %v: %s has no lease", step, n.Name)
				}
			}
		}
		return c.nodes[0].raftIfOpen().Term() - before
	}
	elections := steps()
	for n := 0; n < 2 && elections > 0; n++ { // a machine that stands still for a while loses leaders too; a step does so each time
		elections = steps()
	}
	if elections > 0 {
		t.Errorf("leaders were elected in each of three rounds, %d in the last one", elections)
	}
	var years []int
	events, _ := c.nodes[0].events.since(0)
	for _, e := range events {
		switch e.Kind {
		case "step":
			years = append(years, e.At.Year()-start.Year())
		case "member dropped":
			t.Errorf("%+v", e)
		}
	}
	if n := len(years) - 5; n < 0 || years[n+2] < 9 || years[n+3] > -9 {
		t.Errorf("the stamps do not show the steps: years %v", years)
	}
}

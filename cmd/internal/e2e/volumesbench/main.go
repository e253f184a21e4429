// Command volumesbench measures what many volumes cost on one machine: two data nodes and a witness on loopback addresses, with so
// many small volumes that nobody uses. For each number it prints how long the first start took, what each daemon takes of a core and
// of memory when idle, and when the other node served the first and the last of them after the primary's daemon was killed.
//
// Exit codes: 0 all limits are kept, 1 one is not, or something else went wrong, and it says what.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

type options struct {
	bin, numbers        string
	profiles            string
	settle, look        time.Duration
	core, memory, times float64
}

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`folder` of haclusterd and ha-admin")
	flag.StringVar(&o.numbers, "n", "1,10,100,1000", "`numbers` of volumes")
	flag.DurationVar(&o.settle, "settle", 15*time.Second, "how long a cluster may come to rest")
	flag.DurationVar(&o.look, "t", 10*time.Second, "how long the idle cluster is looked at")
	flag.StringVar(&o.profiles, "profile", "", "`folder` for profiles of each daemon, idle and after the kill, which cost some of what is measured")
	flag.Float64Var(&o.core, "core", 2, "limit: the `percentage` of a core that an idle daemon may take")
	flag.Float64Var(&o.memory, "memory", 512, "limit: the `MiB` that a daemon may have resident")
	flag.Float64Var(&o.times, "times", 1.5, "limit: how many `times` as long as the first number's a failover may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "volumesbench:", err)
		return 1
	}
	return 0
}

// figures are those of one number of volumes.
type figures struct {
	healthy     time.Duration
	core, mib   map[string]float64 // of each daemon
	first, last time.Duration      // from the kill to the first and the last that is served
	decided     time.Duration      // and to the last promotion that is decided
}

func bench(ctx context.Context, o options) (err error) {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "VOLUMES\tHEALTHY AFTER\t% OF A CORE, IDLE\tMiB\tDECIDED, SERVED AFTER THE KILL")
	var one time.Duration
	for _, text := range strings.Split(o.numbers, ",") {
		n, err2 := strconv.Atoi(text)
		if err2 != nil || n < 1 {
			return fmt.Errorf("%q is no number of volumes", text)
		}
		f, err2 := measure(ctx, o, n)
		if err2 != nil {
			return fmt.Errorf("%d volumes: %w", n, err2)
		}
		if one == 0 {
			one = f.last
		}
		var core, mib []string
		for _, node := range e2e.Nodes {
			core, mib = append(core, fmt.Sprintf("%.1f", f.core[node])), append(mib, fmt.Sprintf("%.0f", f.mib[node]))
			if f.core[node] > o.core || f.mib[node] > o.memory {
				err = errors.Join(err, fmt.Errorf("%d volumes: %s takes %.1f %% of a core and %.0f MiB, the limits are %g and %g", n, node, f.core[node], f.mib[node], o.core, o.memory))
			}
		}
		if f.last > time.Duration(o.times*float64(one)) {
			err = errors.Join(err, fmt.Errorf("%d volumes: served after %v, more than %g times %v", n, f.last, o.times, one))
		}
		fmt.Fprintf(t, "%d\t%.1f s\t%s\t%s\t%d, %d to %d ms\n", n, f.healthy.Seconds(), strings.Join(core, ", "), strings.Join(mib, ", "), f.decided.Milliseconds(), f.first.Milliseconds(), f.last.Milliseconds())
		t.Flush()
	}
	return err
}

func measure(ctx context.Context, o options, n int) (f figures, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "hac-volumes-") // the path of a socket is short
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := e2e.Config{Dir: dir, Bin: o.bin, RTO: "2s", Size: "16MiB", Apart: true}
	for i := 2; i <= n; i++ {
		cfg.More = append(cfg.More, fmt.Sprint("v", i))
	}
	c, err := e2e.New(cfg)
	if err != nil {
		return f, err
	}
	defer c.Close()
	began := time.Now()
	if err := c.Start(); err != nil {
		return f, err
	}
	forming, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	st, err := c.Until(forming, "all volumes are healthy", func(s *api.Status) bool {
		healthy := 0
		for _, v := range s.Volumes {
			if v.State == api.VolumeHealthy {
				healthy++
			}
		}
		return s.Quorum && healthy == n
	})
	if err != nil {
		return f, err
	}
	f.healthy = time.Since(began)
	if err := pause(ctx, o.settle); err != nil {
		return f, err
	}
	if err := idle(ctx, c, o, n, &f); err != nil {
		return f, err
	}
	return f, kill(ctx, c, st, o, n, &f)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func idle(ctx context.Context, c *e2e.Cluster, o options, n int, f *figures) (err error) {
	before := map[string]time.Duration{}
	for _, node := range e2e.Nodes {
		if before[node], err = usedBy(c.Pid(node)); err != nil {
			return err
		}
	}
	began := time.Now()
	end := o.profile(ctx, c, fmt.Sprint(n, "-idle"), o.look, e2e.Nodes...)
	if err := pause(ctx, o.look); err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	passed := time.Since(began)
	f.core, f.mib = map[string]float64{}, map[string]float64{}
	for _, node := range e2e.Nodes {
		used, err := usedBy(c.Pid(node))
		if err != nil {
			return err
		}
		f.core[node] = 100 * (used - before[node]).Seconds() / passed.Seconds()
		if f.mib[node], err = resident(c.Pid(node)); err != nil {
			return err
		}
	}
	return nil
}

func usedBy(pid int) (used time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("process %d has no threads: %w", pid, errors.Join(err, os.ErrNotExist))
	}
	for _, task := range tasks {
		var ns int64
		b, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			return 0, fmt.Errorf("%s: %w", task, err)
		}
		used += time.Duration(ns)
	}
	return used, nil
}

var rss = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

func resident(pid int) (mib float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := rss.FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("process %d does not tell its memory", pid)
	}
	kib, err := strconv.Atoi(string(m[1]))
	return float64(kib) / 1024, err
}

// kill kills the primary's daemon and waits until the other node serves all, as its log tells.
func kill(ctx context.Context, c *e2e.Cluster, st *api.Status, o options, n int, f *figures) (err error) {
	from := st.Volumes[0].Primary
	to := map[string]string{"alpha": "beta", "beta": "alpha"}[from]
	end := o.profile(ctx, c, fmt.Sprint(n, "-kill"), 3*time.Second, to, "gamma")
	defer func() { err = errors.Join(err, end()) }()
	at := time.Now()
	c.Kill(from)
	for end := at.Add(time.Minute); time.Now().Before(end); {
		times, err := toldAt(c.Log(to), primary, at)
		if err != nil {
			return err
		}
		if len(times) == n {
			for _, node := range e2e.Nodes { // whoever leads
				decided, err := toldAt(c.Log(node), promoting, at)
				if err != nil {
					return err
				}
				for _, t := range decided {
					f.decided = max(f.decided, t.Sub(at))
				}
			}
			f.first, f.last = times[0].Sub(at), times[n-1].Sub(at)
			return nil
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not serve all %d volumes a minute after %s was killed", to, n, from)
}

var (
	primary   = regexp.MustCompile(`^time=(\S+) .*msg=primary `)
	promoting = regexp.MustCompile(`^time=(\S+) .*msg=promoting `)
)

// toldAt are the times of a log's lines of one kind.
func toldAt(log string, line *regexp.Regexp, since time.Time) (times []time.Time, err error) {
	file, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		m := line.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		t, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", log, err)
		}
		if t.After(since) {
			times = append(times, t)
		}
	}
	return times, lines.Err()
}

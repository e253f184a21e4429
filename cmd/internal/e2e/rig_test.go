package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
)

// patience bounds every wait of a test. It says nothing about how fast the product is: the machine may be busy.
const patience = 60 * time.Second

var built = struct {
	sync.Once
	dir, err string
	made     bool
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.made {
		os.RemoveAll(built.dir)
	}
	for _, dir := range []string{hadiskDir, taggedDir} {
		if dir != "" {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// binaries is the folder of the programs under test: HACLUSTER_BIN, or built now, under the race detector with
// HACLUSTER_RACE=1.
func binaries(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir = os.Getenv("HACLUSTER_BIN"); built.dir != "" {
			built.dir, _ = filepath.Abs(built.dir)
			return
		}
		dir, err := os.MkdirTemp("", "hacluster-bin")
		if err != nil {
			built.err = err.Error()
			return
		}
		built.dir, built.made = dir, true
		args := []string{"build"}
		if os.Getenv("HACLUSTER_RACE") == "1" {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "-o", dir+"/", "hacluster/cmd/haclusterd", "hacluster/cmd/ha-admin")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Sprintf("%v: %s", err, out)
		}
	})
	if built.err != "" {
		t.Fatalf("build the programs: %s", built.err)
	}
	return built.dir
}

// rig is a cluster under test.
type rig struct {
	*Cluster
	t   *testing.T
	ctx context.Context
}

// newRig writes the configuration of a cluster and starts nothing.
func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes take their time: not with -short")
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "hac") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir = dir
	if cfg.Bin == "" {
		cfg.Bin = binaries(t)
	}
	if cfg.Size == "" {
		cfg.Size = "64MiB"
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Cluster: c, t: t, ctx: t.Context()}
	t.Cleanup(func() {
		if t.Failed() {
			c.ShowEvents(os.Stderr)
		}
		c.Close()
		if t.Failed() {
			c.ShowLogs(os.Stderr, 60)
			if os.Getenv("HACLUSTER_KEEP") != "" {
				t.Logf("kept: %s", dir)
				return
			}
		}
		os.RemoveAll(dir)
	})
	return r
}

// healthy starts a cluster and waits until it is formed.
func healthy(t *testing.T, cfg Config) *rig {
	t.Helper()
	r := newRig(t, cfg)
	r.start()
	r.until("the volume is healthy", Healthy)
	return r
}

func (r *rig) start(nodes ...string) {
	r.t.Helper()
	if err := r.Start(nodes...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.ctx, patience)
}

func (r *rig) until(what string, want func(*api.Status) bool) *api.Status {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	s, err := r.Until(ctx, what, want)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// vol is the volume's part of the present status.
func (r *rig) vol() api.VolumeStatus {
	r.t.Helper()
	return r.until("a node answers", func(s *api.Status) bool { return s.Quorum && len(s.Volumes) == 1 }).Volumes[0]
}

// stop ends nodes by SIGTERM, one after the other; each has to end with exit code 0.
func (r *rig) stop(nodes ...string) {
	r.t.Helper()
	for _, n := range nodes {
		code, err := r.Stop(n)
		if err != nil || code != 0 {
			r.t.Fatalf("%s after SIGTERM: exit code %d, %v", n, code, err)
		}
	}
}

func (r *rig) signal(s syscall.Signal, nodes ...string) {
	r.t.Helper()
	for _, n := range nodes {
		if err := r.Signal(n, s); err != nil {
			r.t.Fatal(err)
		}
	}
}

// admin runs ha-admin, which has to end with the code. Exit code 4, nobody leads the group at this moment or leadership
// was passed on, is not the end unless it is wanted: on a busy machine that may be at any time.
func (r *rig) admin(code int, args ...string) (stdout, stderr string) {
	r.t.Helper()
	for try := 0; ; try++ {
		ctx, cancel := r.within()
		out, errs, got := r.Admin(ctx, args...)
		cancel()
		switch {
		case got == 3 && code == 3 && try < 20 && strings.Contains(errs, "whether clients use it is unknown"):
			// A busy machine gave the primary no time to say who its clients are: the refusal is right, and not the wanted one.
		case got == code:
			return out, errs
		case code == 0 && args[0] == "failover" && strings.Contains(errs, "is primary of volume") && strings.Contains(errs, "already"):
			return out, errs // done by an earlier try, whose answer was lost
		case code == 0 && got == 3 && try < 20 && args[0] == "failover" && strings.Contains(errs, "resync"):
			r.until("healthy", Healthy) // a machine without time to spare had the standby dropped: its refusal is right (R6)
			continue
		case got != 4 || try == 20:
			r.t.Fatalf("ha-admin %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
		}
		r.until("there is a leader", func(s *api.Status) bool { return s.Quorum })
	}
}

// says fails the test unless the text contains all words.
func (r *rig) says(text string, words ...string) {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Errorf("%q does not say %q", text, w)
		}
	}
}

// untilLog waits until a node's log says something.
func (r *rig) untilLog(node, words string) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(r.Log(node))
		if err == nil && strings.Contains(string(b), words) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s never logged %q", node, words)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ends waits until a node ends by itself with the code.
func (r *rig) ends(node string, code int) {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	got, err := r.Wait(ctx, node)
	if err != nil || got != code {
		r.t.Fatalf("%s: exit code %d, want %d, %v", node, got, code, err)
	}
}

// same stops everything and compares the replicas.
func (r *rig) same() {
	r.t.Helper()
	r.until("the volume is healthy at the end", Healthy)
	if err := r.StopAndCompare(r.vol().Primary); err != nil {
		r.t.Fatal(err)
	}
}

// get asks a health endpoint.
func (r *rig) get(node, path string) (code int) {
	r.t.Helper()
	c := http.Client{Timeout: 5 * time.Second}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://" + r.HTTP(node) + path)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// other is the data node that is not this one.
func other(node string) string {
	if node == "alpha" {
		return "beta"
	}
	return "alpha"
}

func replica(s *api.Status, node string) api.ReplicaStatus {
	for _, r := range s.Volumes[0].Replicas {
		if r.Node == node {
			return r
		}
	}
	return api.ReplicaStatus{}
}

// stateOfReplica is a condition for until.
func stateOfReplica(node, state string) func(*api.Status) bool {
	return func(s *api.Status) bool { return s.Quorum && len(s.Volumes) == 1 && replica(s, node).State == state }
}

func isMember(node string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && slices.Contains(s.Volumes[0].InSync, node)
	}
}

// loading is a load under way, through a client that follows the primary.
type loading struct {
	r      *rig
	dev    *nbdclient.Reconnecting
	rec    *Recorder
	acks   atomic.Int64
	cancel context.CancelFunc
	done   chan error
	ended  bool
	err    error
}

func (r *rig) dial(uris ...string) *nbdclient.Reconnecting {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	// Longer than any lease here, so that what a stopped primary holds of ours it may not do any more when it wakes.
	dev, err := nbdclient.Open(ctx, uris, nbdclient.ReconnectConfig{Limit: patience, Silence: 4 * time.Second})
	if err != nil {
		r.t.Fatalf("connect to %v: %v", uris, err)
	}
	r.t.Cleanup(func() { dev.Close() })
	return dev
}

// load begins to write, and to read back, in the second half of the first 32 MiB.
func (r *rig) load() *loading {
	r.t.Helper()
	rec, err := NewRecorder("")
	if err != nil {
		r.t.Fatal(err)
	}
	l := &loading{r: r, dev: r.dial(r.URIs()...), rec: rec, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(r.ctx)
	l.cancel = cancel
	load := &Load{Dev: l.dev, Reads: l.dev, Record: rec, First: 4096, Blocks: 4096, Workers: 4, Think: 5 * time.Millisecond,
		Acked: func(string) { l.acks.Add(1) }}
	go func() { l.done <- load.Run(ctx) }()
	r.t.Cleanup(func() { l.end() })
	l.more(100)
	return l
}

// more waits for n more acknowledgements.
func (l *loading) more(n int64) {
	l.r.t.Helper()
	want, deadline := l.acks.Load()+n, time.Now().Add(patience)
	for l.acks.Load() < want {
		select {
		case err := <-l.done:
			l.ended, l.err = true, err
			l.r.t.Fatalf("the load ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			l.r.t.Fatalf("%d of %d more writes were acknowledged within %v", l.acks.Load()-want+n, n, patience)
		}
	}
}

func (l *loading) end() error {
	l.cancel()
	if !l.ended {
		l.ended, l.err = true, <-l.done
	}
	return l.err
}

// anew is another load, in place of one whose end proves nothing: it wrote to a node that turned out to be the only
// member when its disk failed, which the client was told of, or its power went, with what was not flushed.
func (l *loading) anew() *loading {
	l.r.t.Helper()
	if err := l.end(); err != nil {
		l.r.t.Logf("a client of the only member saw: %v", err)
	}
	l.dev.Close()
	l.r.until("served again", func(s *api.Status) bool {
		return len(s.Volumes) == 1 && PrimaryIs(s.Volumes[0].Primary)(s) && s.Volumes[0].Primary != ""
	})
	return l.r.load()
}

// stop ends the load, which must not have seen an error, and checks that nothing acknowledged is lost.
func (l *loading) stop() {
	l.r.t.Helper()
	if err := l.end(); err != nil {
		l.r.t.Fatalf("a client saw an error: %v", err)
	}
	l.check()
}

// check reads everything back.
func (l *loading) check() {
	l.r.t.Helper()
	dev := l.r.dial(l.r.URIs()...)
	defer dev.Close()
	lost, err := l.rec.Check(dev)
	if err != nil {
		l.r.t.Fatal(err)
	}
	if len(lost) > 0 {
		l.r.t.Fatalf("%d of %d blocks are lost or wrong, the first: %v", len(lost), l.rec.Size(), lost[0])
	}
	if l.rec.Writes == 0 {
		l.r.t.Fatal("nothing was written: this proves nothing")
	}
}

type apiStatus = api.Status

type apiVolume = api.VolumeStatus

func (r *rig) socket(node string) string { return filepath.Join(r.DataDir(node), "admin.sock") }

func replaced(t *testing.T, text, old, with string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is not once in %q", old, text)
	}
	return strings.Replace(text, old, with, 1)
}

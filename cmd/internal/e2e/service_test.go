package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev/frontend/attach"
	"hacluster/cmd/internal/api"
)

// served is a cluster with a service that writes, every 10 ms, "node pid" to a journal that all nodes share, and holds a lock: one that
// finds it held writes "OVERLAP". A deaf one ignores SIGTERM, so that a guard needs half of its time. So the journal shows when it ran where, and whether it ever ran twice.
type served struct {
	*rig
	folder string
}

const serviceText = `
service "shop" {
  volumes = [%[2]s]
  restarts = 1
  exec "writer" {
    run      = ["/bin/sh", "-c", "%[1]s/writer ${node.name}"]
    monitor  = ["/bin/sh", "-c", "! test -e %[1]s/ill-${node.name}"]
    interval = "200ms"
    stop_timeout = "5s"
  }
}
`

const writer = `#!/bin/sh
exec 9>%[1]s/lock
test -e %[1]s/deaf && trap '' TERM
if test -e %[1]s/uses-device; then
  until test -b %[1]s/$1.dev/vol; do sleep 0.02; done
  exec 8<%[1]s/$1.dev/vol
fi
flock -n 9 || { echo "OVERLAP $1 $$" >>%[1]s/journal; exit 9; }
while :; do echo "$1 $$" >>%[1]s/journal; sleep 0.01; done
`

func newServed(t *testing.T, cfg Config, deaf bool) *served {
	t.Helper()
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("there is no flock")
	}
	r := newRig(t, cfg)
	s := &served{r, filepath.Dir(r.File())}
	if deaf {
		if err := os.WriteFile(s.folder+"/deaf", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cfg.Attach != "" {
		if err := os.WriteFile(s.folder+"/uses-device", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.folder+"/writer", []byte(fmt.Sprintf(writer, s.folder)), 0o755); err != nil {
		t.Fatal(err)
	}
	volumes := `"` + strings.Join(append([]string{Volume}, cfg.More...), `", "`) + `"`
	f, err := os.OpenFile(r.File(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, serviceText, s.folder, volumes); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r.start()
	r.until("the volumes are healthy", allAre(api.VolumeHealthy))
	t.Cleanup(func() { // the guards end what runs
		r.Close()
		for until := time.Now().Add(patience); len(s.processes()) > 0; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(until) {
				t.Errorf("processes are left: %v", s.processes())
				return
			}
		}
		s.once()
	})
	return s
}

// processes are the daemons' guards and what they hold.
func (s *served) processes() (all []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		b, err := os.ReadFile(name)
		text := string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		if err == nil && strings.Contains(text, s.folder) && (strings.Contains(text, " guard ") || strings.Contains(text, " hold ") || strings.Contains(text, "/writer")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			all = append(all, pid)
		}
	}
	return all
}

func (s *served) guard(node string) int {
	for _, pid := range s.processes() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.HasSuffix(b, []byte("\x00guard\x00"+s.DataDir(node)+"\x00")) {
			return pid
		}
	}
	s.t.Fatalf("no guard on %s", node)
	return 0
}

// runs are the "node pid" of the journal, one for each time that the service ran.
func (s *served) runs() (all []string) {
	b, err := os.ReadFile(s.folder + "/journal")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if len(all) == 0 || all[len(all)-1] != line {
			all = append(all, line)
		}
	}
	return all
}

// once checks that it never ran twice at a time: no run goes on after another began, and none found the lock held.
func (s *served) once() {
	s.t.Helper()
	all := s.runs()
	for i, r := range all {
		if strings.HasPrefix(r, "OVERLAP") || slices.Contains(all[:i], r) {
			s.t.Errorf("it ran twice at a time: %q", all)
			return
		}
	}
	s.t.Logf("ran: %q", all)
}

// running waits until the service runs on a node, in a run after the first n, and the status says so.
func (s *served) running(node string, n int) {
	s.t.Helper()
	s.until("the service runs on "+node, func(st *apiStatus) bool {
		all := s.runs()
		return len(all) > n && strings.HasPrefix(all[len(all)-1], node+" ") &&
			len(st.Services) == 1 && st.Services[0].Node == node && st.Services[0].State == "running"
	})
}

// primary is where it runs at first. Another node leads the group by then: after an election a lease is waited for that ended long ago,
// and nothing that comes too early would be seen.
func (s *served) primary() string {
	s.t.Helper()
	node := s.vol().Primary
	s.running(node, 0)
	s.until("another node leads the group", func(st *apiStatus) bool { return st.Quorum && st.Leader != "" && st.Leader != node })
	return node
}

// alive reports whether the newest run still writes.
func (s *served) alive() bool {
	size := func() int64 {
		fi, err := os.Stat(s.folder + "/journal")
		if err != nil {
			s.t.Fatal(err)
		}
		return fi.Size()
	}
	was := size()
	time.Sleep(100 * time.Millisecond)
	return size() > was
}

// moved waits for the service on the other node and logs how long it stood still.
func (s *served) moved(to string, n int) {
	s.t.Helper()
	began := time.Now()
	for until := began.Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if all := s.runs(); len(all) > n && strings.HasPrefix(all[len(all)-1], to+" ") {
			break
		}
		if time.Now().After(until) {
			s.t.Fatalf("it does not run on %s: %q", to, s.runs())
		}
	}
	s.t.Logf("it ran on %s %v after the fault", to, time.Since(began).Round(time.Millisecond))
	s.running(to, n)
}

func TestServiceFollowsAPrimaryThatIsKilled(t *testing.T) {
	s := newServed(t, Config{RTO: "6s"}, true)
	was := s.primary()
	n := len(s.runs())
	s.Kill(was)
	s.moved(other(was), n)
	s.start(was)
	s.until("healthy again", Healthy)
	s.running(other(was), n)
}

func TestServiceEndsWithItsDaemonAndGuard(t *testing.T) {
	s := newServed(t, Config{RTO: "6s"}, true)
	was := s.primary()
	n, guard := len(s.runs()), s.guard(was)
	s.Kill(was)
	if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.moved(other(was), n)
}

func TestServiceLeavesADaemonThatHangs(t *testing.T) {
	s := newServed(t, Config{RTO: "6s"}, true)
	was := s.primary()
	n := len(s.runs())
	s.signal(syscall.SIGSTOP, was)
	s.moved(other(was), n)
	s.signal(syscall.SIGCONT, was)
	s.until("healthy again", Healthy)
	s.running(other(was), n)
}

func TestServiceMovesWithAHandOver(t *testing.T) {
	s := newServed(t, Config{}, false)
	was := s.primary()
	for range 3 {
		n := len(s.runs())
		s.admin(0, "failover", Volume, "--to", other(was))
		s.moved(other(was), n)
		was = other(was)
		s.until("healthy again", Healthy)
	}
	out, _ := s.admin(0, "status")
	s.says(out, "SERVICE", "shop", was, "running")
}

func TestServiceMovesWhenItsDaemonIsStopped(t *testing.T) {
	s := newServed(t, Config{}, false)
	was := s.primary()
	n := len(s.runs())
	s.stop(was)
	s.moved(other(was), n)
	s.stop(other(was))
	if s.alive() {
		t.Error("it runs after its daemon was stopped")
	}
}

// A service that has the local device open is stopped before the device is let go, or else a hand-over would be refused, and a stop
// would do without one.
func TestServiceOnTheDeviceMoves(t *testing.T) {
	if err := attach.Supported(); err != nil {
		t.Skipf("no device can be attached here: %v", err)
	}
	s := newServed(t, Config{Attach: "fuse"}, false)
	was := s.primary()
	n := len(s.runs())
	s.admin(0, "failover", Volume, "--to", other(was))
	s.moved(other(was), n)
	was = other(was)
	s.until("healthy again", Healthy)
	n = len(s.runs())
	epoch := s.vol().Epoch
	s.stop(was)
	s.moved(other(was), n)
	ctx, cancel := s.within()
	defer cancel()
	if f, err := s.FailoverTo(ctx, epoch+1); err != nil || f.From != was || f.To != other(was) || f.Reason != "given up" {
		t.Errorf("the stop moved the volume so: %+v, %v", f, err)
	}
	s.stop(other(was))
	for _, node := range s.DataNodes() {
		if s.place(node).Runs() || s.place(node).Left() {
			t.Errorf("%s: a device that nobody used outlives a stop", node)
		}
	}
}

// A service that is ill where it is: restarted there once, then it goes.
func TestServiceThatFailsIsRestartedThenMoved(t *testing.T) {
	s := newServed(t, Config{}, false)
	was := s.primary()
	if err := os.WriteFile(s.folder+"/ill-"+was, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := len(s.runs())
	s.moved(other(was), n)
	here := 0
	for _, r := range s.runs() {
		if strings.HasPrefix(r, was+" ") {
			here++
		}
	}
	if here != 2 {
		t.Errorf("it ran %d times on %s, want twice: %q", here, was, s.runs())
	}
	out, _ := s.admin(0, "events")
	s.says(out, "service restarted", "service failed", "service failover", "service running")
}

// The guard alone is killed: it is started anew, and the service with it.
func TestServiceReturnsWhenItsGuardIsKilled(t *testing.T) {
	s := newServed(t, Config{}, false)
	was := s.primary()
	n := len(s.runs())
	if err := syscall.Kill(s.guard(was), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.running(was, n)
}

// A daemon that comes back before its lease ends, and that nobody else can follow, finds its service running and leaves it so.
func TestServiceOutlivesARestartOfItsDaemon(t *testing.T) {
	s := newServed(t, Config{RTO: "10s", Extra: "  resync { max_rate = \"1MiB\" }"}, false) // which takes 17 minutes of the volume
	was := s.primary()
	s.admin(0, "volume", "resync", Volume, "--replica", other(was), "--full", "--drop-member")
	s.until("the other replica is not in sync", func(st *apiStatus) bool { return len(st.Volumes) == 1 && len(st.Volumes[0].InSync) == 1 })
	n, epoch := len(s.runs()), s.vol().Epoch
	s.Kill(was)
	s.start(was)
	s.until("it is promoted anew", func(st *apiStatus) bool { return len(st.Volumes) == 1 && st.Volumes[0].Epoch > epoch })
	s.running(was, n-1)
	if now := s.runs(); len(now) != n || !s.alive() {
		t.Errorf("it was stopped, and started anew: %q", now)
	}
}

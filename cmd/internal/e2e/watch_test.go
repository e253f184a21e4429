package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// said is what a program that goes on has printed so far.
type said struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// follow runs an ha-admin that ends by SIGINT only.
func (r *rig) follow(servers []string, args ...string) (out *said, interrupt func() int) {
	r.t.Helper()
	out = &said{}
	ctx, cancel := context.WithCancel(r.ctx)
	cmd := exec.CommandContext(ctx, filepath.Join(r.cfg.Bin, "ha-admin"), append([]string{"--server", strings.Join(servers, ",")}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	r.t.Cleanup(func() { cancel(); <-done })
	return out, func() int {
		_ = cmd.Process.Signal(syscall.SIGINT)
		<-done
		return cmd.ProcessState.ExitCode()
	}
}

func (r *rig) hears(out *said, what string, has func(string) bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !has(out.String()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never said %s:\n%s", what, out)
		}
	}
}

func TestWatchAndEventsGoOnWhenTheNodeThatTellsDies(t *testing.T) {
	r := healthy(t, Config{RTO: "6s"})
	primary := r.vol().Primary
	standby := other(primary)
	servers := []string{r.socket(primary), r.socket(standby), r.socket("gamma")}
	watch, endWatch := r.follow(servers, "status", "--watch", "--interval", "200ms")
	events, endEvents := r.follow(servers, "events", "--follow")
	r.hears(watch, "that all is well", func(s string) bool { return strings.Contains(s, "volume vol: healthy") })
	r.hears(events, "what the first primary was", func(s string) bool { return strings.Contains(s, primary+" is primary of epoch 1") })
	_, _, after := r.struck(blow{what: "the primary dies", node: primary, strike: func(node string) { r.Kill(node) }, undo: func(node string) { r.start(node) }})
	r.hears(watch, "who took over", func(s string) bool {
		return strings.Contains(s, fmt.Sprintf("primary %s, epoch %d", standby, after.Epoch))
	})
	r.hears(events, "who took over", func(s string) bool {
		return strings.Contains(s, fmt.Sprintf("%s is primary of epoch %d", standby, after.Epoch))
	})
	if code := endWatch(); code != 0 {
		t.Errorf("status --watch: exit code %d after SIGINT", code)
	}
	if code := endEvents(); code != 0 {
		t.Errorf("events --follow: exit code %d after SIGINT", code)
	}
	if n := strings.Count(events.String(), " is primary of epoch 1"); n != 1 {
		t.Errorf("the first promotion was told %d times:\n%s", n, events)
	}
	if strings.Contains(watch.String(), "\x1b") {
		t.Error("control sequences were written to a pipe")
	}
}

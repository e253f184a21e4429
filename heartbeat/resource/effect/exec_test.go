package effect

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run one after the other, and each ends all descendants of this process.
func TestMain(m *testing.M) {
	if err := Subreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// logged is a log that can be read.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func newEffect(t *testing.T, s Spec) (Effect, *logged) {
	t.Helper()
	out := &logged{}
	e, err := New(s, slog.New(slog.NewTextHandler(out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Kill(within(t, 10*time.Second)) })
	return e, out
}

func shell(text string) []string { return []string{"/bin/sh", "-c", text} }

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func left(t *testing.T) []int {
	t.Helper()
	all, err := Descendants(nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What daemonizes in every way known belongs to the resource all the same.
func TestStopEndsWhatAStartLeftBehind(t *testing.T) {
	e, _ := newEffect(t, Spec{Kind: "exec", Name: "d", Start: shell(`sleep 300 & setsid sleep 300 & (setsid sh -c 'sleep 300 & sleep 300') & env -i nohup sleep 300 >/dev/null 2>&1 &`)})
	if err := e.Start(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	await(t, "five sleeps and a shell run", func() bool { return len(left(t)) >= 6 })
	if err := e.Monitor(within(t, time.Second)); err != nil {
		t.Error(err)
	}
	if err := e.Stop(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if l := left(t); len(l) != 0 {
		t.Fatalf("left: %v", l)
	}
}

func TestProcessThatIgnoresSIGTERMIsLeftForKill(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	e, _ := newEffect(t, Spec{Kind: "exec", Name: "deaf", Run: shell(`trap '' TERM; : >` + ready + `; while :; do sleep 1; done`)})
	if err := e.Start(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	await(t, "it ignores SIGTERM", func() bool { _, err := os.Stat(ready); return err == nil })
	if err := e.Stop(within(t, 300*time.Millisecond)); err == nil || !strings.Contains(err.Error(), "left after") {
		t.Fatalf("Stop: %v", err)
	}
	if err := e.Kill(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if l := left(t); len(l) != 0 {
		t.Fatalf("left: %v", l)
	}
}

// A stopped process does not answer SIGTERM, and one that forks all the time outruns a single look.
func TestKillEndsStoppedAndForkingProcesses(t *testing.T) {
	e, _ := newEffect(t, Spec{Kind: "exec", Name: "forks", Start: shell(`(while :; do sleep 300 & sleep 0.01; done) & sleep 300 & kill -STOP $!`)})
	if err := e.Start(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	await(t, "it forks", func() bool { return len(left(t)) > 5 })
	if err := e.Kill(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if l := left(t); len(l) != 0 {
		t.Fatalf("left: %v", l)
	}
}

func TestCommandThatHangsIsKilled(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(Effect, context.Context) error
	}{{"start", Effect.Start}, {"stop", Effect.Stop}, {"monitor", Effect.Monitor}} {
		e, _ := newEffect(t, Spec{Kind: "exec", Name: "hangs", Start: shell("sleep 300"), Stop: shell("sleep 300"), Monitor: shell("sleep 300")})
		began := time.Now()
		err := c.do(e, within(t, 200*time.Millisecond))
		if err == nil || !strings.Contains(err.Error(), c.name+": killed") {
			t.Errorf("%s: %v", c.name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: returned after %v", c.name, took)
		}
		await(t, "the sleep is gone", func() bool { return len(left(t)) == 0 })
	}
}

func TestRunIsWatched(t *testing.T) {
	e, _ := newEffect(t, Spec{Kind: "exec", Name: "short", Run: shell("sleep 0.2; echo out of paper >&2; exit 3")})
	if err := e.Start(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := e.Monitor(within(t, time.Second)); err != nil {
		t.Error(err)
	}
	select {
	case err := <-e.Ended():
		if !strings.Contains(err.Error(), "exit status 3") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody tells that it ended")
	}
	if err := e.Monitor(within(t, time.Second)); err == nil {
		t.Error("it ended, and its monitor is content")
	}
	if err := e.Stop(within(t, time.Second)); err != nil {
		t.Error(err)
	}
}

func TestStopIsNotTakenForAnEnd(t *testing.T) {
	e, _ := newEffect(t, Spec{Kind: "exec", Name: "long", Run: []string{"/bin/sleep", "300"}})
	for range 3 {
		if err := e.Start(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := e.Stop(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-e.Ended():
		t.Fatalf("told as an end by itself: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestFailureQuotesTheLastLine(t *testing.T) {
	e, out := newEffect(t, Spec{Kind: "exec", Name: "talks", Start: shell("echo one; echo no such table >&2; exit 7"), Monitor: []string{"/no/such/program"}})
	err := e.Start(within(t, 10*time.Second))
	if err == nil || !strings.Contains(err.Error(), "start: exit status 7") {
		t.Fatal(err)
	}
	await(t, "both lines are logged", func() bool {
		return strings.Contains(out.String(), "line=one") && strings.Contains(out.String(), "no such table")
	})
	if err := e.Monitor(within(t, time.Second)); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Error(err)
	}
}

// A program that talks without end costs the log a bounded number of lines, and blocks nobody.
func TestOutputIsBounded(t *testing.T) {
	e, out := newEffect(t, Spec{Kind: "exec", Name: "talks", Start: shell(`head -c 3000 /dev/zero | tr '\0' y; i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done`)})
	if err := e.Start(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	await(t, "what was left out is told", func() bool { return strings.Contains(out.String(), "output left out") })
	n := 0
	for line := range strings.Lines(out.String()) {
		n++
		if len(line) > maxLine+200 {
			t.Fatalf("a line of %d bytes", len(line))
		}
	}
	if n > linesBurst+linesSecond*60 || n < linesBurst {
		t.Fatalf("%d lines", n)
	}
}

func TestKillSparesNobodyButWhoIsNamed(t *testing.T) {
	a, _ := newEffect(t, Spec{Kind: "exec", Name: "a", Run: []string{"/bin/sleep", "300"}})
	if err := a.Start(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	spared := left(t)[0]
	if err := End(within(t, time.Second), unix.SIGKILL, func(pid int) bool { return pid == spared }, nil); err != nil {
		t.Fatal(err)
	}
	if l := left(t); len(l) != 1 || l[0] != spared {
		t.Fatalf("left %v, want %d", l, spared)
	}
}

func TestUnusableSpecsAreRefused(t *testing.T) {
	for _, s := range []Spec{{Kind: "exec", Name: "none"}, {Kind: "exec", Name: "both", Run: shell(""), Start: shell("")}, {Kind: "mount", Name: "/x"}, {Kind: "address", Name: "10.0.0.1"}} {
		if _, err := New(s, slog.Default()); err == nil {
			t.Errorf("%s is taken", s)
		}
	}
}

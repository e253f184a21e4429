package guard

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// The test's own program is the guard and the holders too, as haclusterd is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && (os.Args[1] == "guard" || os.Args[1] == "hold") {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGPIPE)
		log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", os.Args[1])
		err := error(nil)
		if os.Args[1] == "hold" {
			err = Hold(os.Stdin, os.Stdout, log)
		} else {
			err = Serve(Config{Dir: os.Args[2], Holder: []string{os.Args[0], "hold", os.Args[2]}, Log: log})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1], err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const patience = 20 * time.Second

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// rig is a guard, and its client in the place of the daemon.
type rig struct {
	t   *testing.T
	dir string
	c   *Client
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.open()
	t.Cleanup(func() {
		_ = r.c.send(Request{Quit: true})
		r.c.Close()
		await(t, "the guard has ended", func() bool { return len(r.processes("")) == 0 && r.guard() == 0 })
	})
	return r
}

func (r *rig) open() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	c, err := Open(ctx, r.dir, []string{os.Args[0], "guard", r.dir})
	if err != nil {
		r.t.Fatal(err)
	}
	r.c = c
}

func (r *rig) lease(d time.Duration) {
	r.t.Helper()
	if err := r.c.Lease(Lease{Until: map[string]Instant{"web": Now().Add(d)}, Time: time.Second}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) do(order int, v resource.Verb, s effect.Spec) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.c.Do(ctx, Do{Service: "web", Order: order, Verb: v, Limit: 5 * time.Second, Spec: s})
}

// start starts a shell with the text, which is ready when the file is there.
func (r *rig) start(order int, text string) effect.Spec {
	r.t.Helper()
	s := effect.Spec{Kind: "exec", Name: fmt.Sprint("r", order), Run: []string{"/bin/sh", "-c", text}}
	if err := r.do(order, resource.Start, s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// pids finds processes by a piece of their command line.
func pids(piece string) (all []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})), piece) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			all = append(all, pid)
		}
	}
	return all
}

// processes are those of services of this rig, by a piece of their command line; all contain the folder.
func (r *rig) processes(piece string) (all []int) {
	for _, pid := range pids(r.dir + "/" + piece) {
		if pid != os.Getpid() {
			all = append(all, pid)
		}
	}
	return all
}

// first is the oldest of them: a shell's child looks like the shell for a moment.
func (r *rig) first(piece string) int {
	if all := r.processes(piece); len(all) > 0 {
		return slices.Min(all)
	}
	return 0
}

func (r *rig) holders() []int { return pids(os.Args[0] + " hold " + r.dir) }

func (r *rig) guard() int {
	if p := pids(os.Args[0] + " guard " + r.dir); len(p) == 1 {
		return p[0]
	}
	return 0
}

// loop is a program that runs for ever and is found by its name.
func (r *rig) loop(name string) string {
	return ": " + r.dir + "/" + name + "; while :; do sleep 0.1; done"
}

func (r *rig) kill(pid int) {
	r.t.Helper()
	if pid <= 0 {
		r.t.Fatalf("no process to kill: %d", pid)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) runs(name string) bool { return len(r.processes(name)) > 0 }

func TestNothingStartsWithoutALease(t *testing.T) {
	r := newRig(t)
	s := effect.Spec{Kind: "exec", Name: "a", Run: []string{"/bin/sh", "-c", r.loop("a")}}
	for name, lease := range map[string]func(){"none": func() {}, "ended": func() { r.lease(-time.Millisecond) }} {
		lease()
		if err := r.do(0, resource.Start, s); err == nil || !strings.Contains(err.Error(), "no lease") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.lease(time.Minute)
	if err := r.do(0, resource.Start, s); err != nil {
		t.Fatal(err)
	}
	if err := r.do(0, resource.Start, s); err == nil {
		t.Error("started twice")
	}
	if err := r.do(0, resource.Stop, s); err != nil || r.runs("a") {
		t.Errorf("stop: %v, runs: %t", err, r.runs("a"))
	}
}

// The daemon is killed, or hangs: nobody renews the lease.
func TestServiceIsDownAfterItsLease(t *testing.T) {
	for name, gone := range map[string]bool{"the daemon hangs": false, "the daemon is gone": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			began := Now()
			r.lease(time.Second)
			r.start(0, r.loop("quiet"))
			r.start(1, "trap '' TERM; "+r.loop("deaf"))
			await(t, "both run", func() bool { return r.runs("quiet") && r.runs("deaf") })
			if gone {
				r.c.Close()
			}
			var down Instant
			await(t, "both are down", func() bool { down = Now(); return !r.runs("quiet") && !r.runs("deaf") })
			if took := down.Sub(began); took < time.Second || took > 2*time.Second {
				t.Errorf("down %v after the lease of 1 s was told, with a guard's time of 1 s", took)
			}
			if gone {
				r.open()
			}
			if s := (effect.Spec{Kind: "exec", Name: "r0", Run: []string{"/bin/true"}}); r.do(0, resource.Start, s) == nil {
				t.Error("started after the lease")
			}
			r.lease(time.Minute)
			s := effect.Spec{Kind: "exec", Name: "r0", Run: []string{"/bin/sh", "-c", r.loop("quiet")}}
			await(t, "a new lease lets it start", func() bool { return r.do(0, resource.Start, s) == nil })
		})
	}
}

func TestRenewedLeaseKeepsItRunning(t *testing.T) {
	r := newRig(t)
	r.lease(time.Second)
	r.start(0, r.loop("a"))
	pid := r.first("a")
	for range 10 {
		time.Sleep(200 * time.Millisecond)
		r.lease(time.Second)
	}
	if now := r.first("a"); now != pid || pid == 0 {
		t.Fatalf("process %d is %d by now", pid, now)
	}
	select {
	case e := <-r.c.Events:
		t.Fatalf("told: %+v", e)
	default:
	}
}

func TestTakenDownIsTold(t *testing.T) {
	r := newRig(t)
	r.lease(500 * time.Millisecond)
	r.start(0, r.loop("a"))
	select {
	case e := <-r.c.Events:
		if e.Taken == nil || e.Taken.Service != "web" || e.Taken.Err != "" {
			t.Fatalf("%+v", e)
		}
	case <-time.After(patience):
		t.Fatal("nothing is told")
	}
}

func TestNextDaemonTakesOverWhatRuns(t *testing.T) {
	r := newRig(t)
	r.lease(time.Minute)
	s := r.start(0, r.loop("a"))
	pid := r.first("a")
	r.c.Close()
	r.open()
	got := r.c.Found.Running["web"]
	if len(got) != 1 || got[0] == nil || got[0].Name != s.Name {
		t.Fatalf("found %+v", r.c.Found)
	}
	if now := r.first("a"); now != pid || pid == 0 {
		t.Fatalf("process %d is %d by now", pid, now)
	}
	if err := r.do(0, resource.Monitor, s); err != nil {
		t.Error(err)
	}
	if err := r.do(0, resource.Stop, s); err != nil || r.runs("a") {
		t.Errorf("stop: %v, runs: %t", err, r.runs("a"))
	}
}

// Guard and daemon are killed: the holders end what they hold.
func TestServiceDiesWithItsGuard(t *testing.T) {
	r := newRig(t)
	r.lease(time.Minute)
	r.start(0, "setsid sh -c '"+r.loop("daemonized")+"' & "+r.loop("a"))
	await(t, "both run", func() bool { return r.runs("daemonized") && r.runs("a") })
	r.kill(r.guard())
	began := time.Now()
	await(t, "both are down", func() bool { return len(r.processes("")) == 0 && len(r.holders()) == 0 })
	t.Logf("down %v after the guard was killed", time.Since(began))
	if _, ok := <-r.c.Events; ok {
		t.Error("the connection goes on")
	}
	r.open()
	if len(r.c.Found.Running) != 0 {
		t.Errorf("found %+v", r.c.Found)
	}
}

// The holder is killed: the guard ends its processes, and tells.
func TestServiceDiesWithItsHolder(t *testing.T) {
	r := newRig(t)
	r.lease(time.Minute)
	s := r.start(0, "setsid sh -c '"+r.loop("daemonized")+"' & "+r.loop("a"))
	r.start(1, r.loop("other"))
	await(t, "all run", func() bool { return r.runs("daemonized") && r.runs("a") && r.runs("other") })
	holder := 0
	for _, pid := range r.holders() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if bytes.Contains(b, []byte("HACLUSTER_RESOURCE=r0\x00")) {
			holder = pid
		}
	}
	r.kill(holder)
	select {
	case e := <-r.c.Events:
		if e.Ended == nil || e.Ended.Order != 0 {
			t.Fatalf("%+v", e)
		}
	case <-time.After(patience):
		t.Fatal("nothing is told")
	}
	if err := r.do(0, resource.Stop, s); err == nil {
		t.Error("stopped without its holder")
	}
	if err := r.do(0, resource.Kill, s); err != nil {
		t.Fatal(err)
	}
	if r.runs("daemonized") || r.runs("a") || !r.runs("other") {
		t.Errorf("a runs: %t, daemonized: %t, other: %t", r.runs("a"), r.runs("daemonized"), r.runs("other"))
	}
	if err := r.do(0, resource.Start, s); err != nil {
		t.Error(err)
	}
}

// Guard and holders are killed at once: the next guard ends what it finds before it takes a word.
func TestNextGuardEndsWhatWasLeftBehind(t *testing.T) {
	r := newRig(t)
	r.lease(time.Minute)
	r.start(0, r.loop("a"))
	await(t, "it runs", func() bool { return r.runs("a") })
	holder, guard := r.holders()[0], r.guard()
	for _, pid := range []int{guard, holder} { // neither sees the other end
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	r.kill(guard)
	r.kill(holder)
	await(t, "guard and holder are gone", func() bool { return r.guard() == 0 && len(r.holders()) == 0 })
	if !r.runs("a") {
		t.Fatal("nothing is left behind: the test proves nothing")
	}
	r.open()
	if r.runs("a") {
		t.Fatal("it runs on")
	}
}

// A holder that is stopped neither answers nor reads the end of its pipe: the guard kills it.
func TestHolderThatHangsIsKilled(t *testing.T) {
	r := newRig(t)
	r.lease(2 * time.Second)
	r.start(0, r.loop("a"))
	await(t, "it runs", func() bool { return r.runs("a") })
	if err := unix.Kill(r.holders()[0], unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := Now()
	await(t, "it is down", func() bool { return !r.runs("a") })
	if took := Now().Sub(began); took > 3*time.Second {
		t.Errorf("down after %v: the lease ended 2 s after, and the guard's time is 1 s", took)
	}
}

func TestGuardThatHoldsNothingEndsWithoutADaemon(t *testing.T) {
	r := newRig(t)
	pid := r.guard()
	r.c.Close()
	await(t, "the guard has ended", func() bool { return unix.Kill(pid, 0) != nil })
	r.open()
}

// A daemon that does not read costs the guard nothing but the connection.
func TestNewerDaemonTakesThePlaceOfAnOlder(t *testing.T) {
	r := newRig(t)
	old := r.c
	r.open()
	if _, ok := <-old.Events; ok {
		t.Error("the older connection goes on")
	}
	r.lease(time.Minute)
	r.start(0, r.loop("a"))
}

func TestGuardUnderstandsNoNonsense(t *testing.T) {
	r := newRig(t)
	if _, err := r.c.conn.Write([]byte("{nonsense\n")); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-r.c.Events; ok {
		t.Error("the connection goes on")
	}
	r.open()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip()
	}
	if err := r.do(0, "dance", effect.Spec{Kind: "exec", Name: "a", Run: []string{"/bin/true"}}); err != nil {
		t.Error(err) // nothing is held: nothing is to be done
	}
}

// The disk of the data directory hangs: no list can be written any more. All services go down in time nevertheless, and a start that
// hangs there starts nothing later.
func TestServicesAreDownThoughTheDiskHangs(t *testing.T) {
	r := newRig(t)
	began := Now()
	end := began.Add(2 * time.Second)
	if err := r.c.Lease(Lease{Until: map[string]Instant{"web": end, "db": end}, Time: time.Second}); err != nil {
		t.Fatal(err)
	}
	for order, name := range []string{"a", "b", "c"} {
		r.start(order, r.loop(name))
	}
	do := func(service string, order int, v resource.Verb, name string) error {
		s := effect.Spec{Kind: "exec", Name: name, Run: []string{"/bin/sh", "-c", r.loop(name)}}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return r.c.Do(ctx, Do{Service: service, Order: order, Verb: v, Limit: 5 * time.Second, Spec: s})
	}
	if err := do("db", 0, resource.Start, "d"); err != nil {
		t.Fatal(err)
	}
	await(t, "all run", func() bool { return r.runs("a") && r.runs("b") && r.runs("c") && r.runs("d") })
	hang := listPath(r.dir) + ".new" // opening it for writing waits for a reader
	if err := unix.Mkfifo(hang, 0o600); err != nil {
		t.Fatal(err)
	}
	late := make(chan error, 1)
	go func() { late <- do("db", 1, resource.Start, "late") }()
	await(t, "the start has its place", func() bool {
		err := do("db", 1, resource.Monitor, "late")
		return err != nil && err.Error() == "it is being started"
	})
	if err := do("web", 1, resource.Stop, "b"); err != nil || r.runs("b") {
		t.Errorf("stop: %v, runs: %t", err, r.runs("b"))
	}
	if Now() > end {
		t.Skip("the machine is too slow: the lease ended before the test began")
	}
	var down Instant
	await(t, "all are down", func() bool { down = Now(); return len(r.processes("")) == 0 })
	if took := down.Sub(end); took < 0 || took > time.Second {
		t.Errorf("down %v after the lease, with a guard's time of 1 s", took)
	}
	if err := r.c.Lease(Lease{Until: map[string]Instant{"db": Now().Add(time.Minute)}, Time: time.Second}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(hang) // the disk goes on
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	select {
	case err := <-late:
		if err == nil || r.runs("late") {
			t.Errorf("a start of a lease before: %v, runs: %t", err, r.runs("late"))
		}
	case <-time.After(patience):
		t.Error("the start does not end")
	}
}

// The guard was stopped, or the machine suspended, past half of the guard's time: there is no time to ask.
func TestGuardsTimeCountsFromTheLeasesEnd(t *testing.T) {
	r := newRig(t)
	r.lease(time.Second)
	end := Now().Add(time.Second)
	asked := r.dir + "/asked"
	r.start(0, "trap 'echo > "+asked+"' TERM; "+r.loop("a"))
	await(t, "it runs", func() bool { return r.runs("a") })
	guard := r.guard()
	if err := unix.Kill(guard, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(end.Add(600 * time.Millisecond).Sub(Now()))
	if err := unix.Kill(guard, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	var down Instant
	await(t, "it is down", func() bool { down = Now(); return !r.runs("a") })
	if took := down.Sub(end); took > time.Second {
		t.Errorf("down %v after the lease, with a guard's time of 1 s", took)
	}
	if _, err := os.Stat(asked); err == nil {
		t.Error("it was asked to stop when half of the guard's time was over")
	}
}

func TestEndOfARight(t *testing.T) {
	for name, c := range map[string]struct {
		until     []Instant
		now, want Instant
	}{
		"runs out":               {[]Instant{100}, 50, 100},
		"told late":              {[]Instant{100, 200}, 300, 200},
		"given up":               {[]Instant{100, 0}, 50, 50},
		"given up, twice":        {[]Instant{100, 20, 0}, 50, 50},
		"given up after it":      {[]Instant{100, 0}, 300, 100},
		"earlier, in the future": {[]Instant{100, 80}, 50, 80},
	} {
		s := &service{}
		for _, until := range c.until {
			s.lease(until, c.now)
		}
		if s.ended != c.want {
			t.Errorf("%s: %v instead of %v", name, s.ended, c.want)
		}
	}
}

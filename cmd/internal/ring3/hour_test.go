package ring3

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/lab/client"
	"hacluster/cmd/internal/lab/history"
)

var (
	hours  = flag.Float64("hours", 1, "virtual hours")
	bound  = flag.Duration("bound", 8*time.Second, "real time after which no further fault is begun; 0: none")
	seeded = flag.Uint64("seed", 0, "of the schedule of faults; 0: drawn")
)

// realTime goes on while virtual time stands: it bounds how much is done, nothing is judged by it.
func realTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// tail keeps the end of the log, or writes all of it to a file.
type tail struct {
	mu   sync.Mutex
	file *os.File
	b    []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		return t.file.Write(p)
	}
	if t.b = append(t.b, p...); len(t.b) > 256<<10 {
		t.b = append([]byte(nil), t.b[128<<10:]...)
	}
	return len(p), nil
}

func newTail(t *testing.T) *tail {
	l := &tail{}
	if path := os.Getenv("HACLUSTER_RING3_LOG"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		l.file = f
	}
	return l
}

func (t *tail) handler() slog.Handler { return slog.NewTextHandler(t, nil) }

func (t *tail) end() string {
	lines := strings.Split(string(t.b), "\n")
	return strings.Join(lines[max(0, len(lines)-80):], "\n")
}

// folder is a short path, preferably in memory.
func folder(t *testing.T) string {
	at := "/dev/shm"
	if _, err := os.Stat(at); err != nil {
		at = ""
	}
	dir, err := os.MkdirTemp(at, "ring3-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// in runs what drive does to a new world, in virtual time, with a load; then it judges.
func in(t *testing.T, seed uint64, think time.Duration, drive func(w *world) error) *world {
	t.Helper()
	dir, log := folder(t), newTail(t)
	var w *world
	var errs error
	synctest.Test(t, func(*testing.T) {
		w, errs = newWorld(seed, dir, log.handler())
		if errs != nil {
			return
		}
		w.volatile = seed%2 == 0
		errs = w.run(think, drive)
		errs = errors.Join(errs, w.end())
	})
	if errs == nil {
		errs = w.judge()
	}
	if errs != nil {
		t.Errorf("seed %d: %v\nschedule:\n%s\nlog:\n%s", seed, errs, strings.Join(w.told, "\n"), log.end())
	}
	return w
}

func (w *world) run(think time.Duration, drive func(w *world) error) error {
	if err := w.found(); err != nil {
		return fmt.Errorf("founding: %w", err)
	}
	w.startLoad(think)
	if err := drive(w); err != nil {
		return err
	}
	w.stopLoad()
	w.stopLoad = nil
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	return errors.Join(w.load.ReadAll(ctx), w.awaitHealthy(settleLimit))
}

// judge holds what the clients saw against what may be, and the two disks against each other.
func (w *world) judge() (err error) {
	r := w.load.Record()
	say := func(format string, args ...any) { err = errors.Join(err, fmt.Errorf(format, args...)) }
	for _, s := range w.twice {
		say("two primaries in one epoch: %s", s)
	}
	bad, undecided := history.Registers(r.Ops, time.Minute)
	for _, v := range bad[:min(len(bad), 5)] {
		say("%v", v)
		for _, o := range v.Ops[:min(len(v.Ops), 20)] {
			say("    %v", o)
		}
	}
	if n := history.Lost(r.Ops); n > 0 {
		say("%d acknowledged writes are lost", n)
	}
	if len(undecided) > 0 {
		say("blocks %v are too hard to judge", undecided)
	}
	if len(r.Broken) > 0 {
		say("broken blocks: %v", r.Broken)
	}
	for _, s := range history.Primaries(r.Ops, w.line()) {
		say("%s", s)
	}
	a := w.m["alpha"].disk.content()
	for _, n := range holders[1:] {
		b := w.m[n].disk.content()
		for off := 0; off < len(a); off += client.BlockSize {
			if !bytes.Equal(a[off:off+client.BlockSize], b[off:off+client.BlockSize]) {
				say("the replicas of alpha and %s differ in block %d", n, off/client.BlockSize)
				break
			}
		}
	}
	return err
}

func (w *world) answered() (n int) {
	for _, o := range w.load.Record().Ops {
		if !o.Unknown {
			n++
		}
	}
	return n
}

// Real nodes, faults at random, one after the other and some at once; after each the cluster heals. No acknowledged
// write is lost, no two nodes answer as primary, and at the end nothing is left running.
func TestHoursOfFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("whole nodes take their time: not with -short")
	}
	seed := *seeded
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	began, kinds, slowest := realTime(), map[string]int{}, map[string]time.Duration{}
	w := in(t, seed, 150*time.Millisecond, func(w *world) error {
		w.tell("clients ask for durable writes: %t", !w.volatile)
		for time.Since(w.began).Hours() < *hours && (*bound == 0 || realTime()-began < *bound) {
			time.Sleep(w.between(100*time.Millisecond, 20*time.Second))
			f := w.draw()
			kinds[f.name]++
			if err := f.do(w); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			if w.rnd.IntN(4) == 0 { // the next one finds it as it is
				continue
			}
			broken := time.Now()
			if err := w.awaitHealthy(settleLimit); err != nil {
				return err
			}
			slowest[f.name] = max(slowest[f.name], time.Since(broken))
		}
		w.tell("done")
		return w.awaitHealthy(settleLimit)
	})
	if len(w.told) == 0 {
		return // the cluster was not founded, which has been reported
	}
	t.Logf("%s s of virtual time in %v: %d faults %v, %d tenures, %d answers, %d processes ended by themselves",
		strings.Fields(w.told[len(w.told)-1])[0], realTime()-began, sum(kinds), kinds, len(w.tenures), w.answered(), w.selfEnds)
	t.Logf("healthy after at most: %v", slowest)
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

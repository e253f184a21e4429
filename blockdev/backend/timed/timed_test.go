package timed

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/blocktest"
)

func TestConformance(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		return New(memdev.New(memdev.Config{Size: size}), Config{})
	})
}

// plain hides what the device below can do beside the interface.
type plain struct{ blockdev.Device }

func TestConformanceOverADeviceWithoutVectorsAndExtents(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		return New(plain{memdev.New(memdev.Config{Size: size})}, Config{})
	})
}

// The path of growing the table, and of marking, is under the suite too.
func TestConformanceWhenEverythingIsStalled(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		return New(memdev.New(memdev.Config{Size: size}), Config{Deadline: 80 * time.Microsecond, OnStall: func(blockdev.Op, blockdev.Range, time.Duration) {}})
	})
}

const deadline = 800 * time.Millisecond

type stall struct {
	op    blockdev.Op
	r     blockdev.Range
	since time.Duration
}

// watched is a timed device over one whose faults the test commands.
func watched() (*Dev, *faultdev.Dev, func() []stall) {
	var mu sync.Mutex
	var seen []stall
	f := faultdev.New(memdev.New(memdev.Config{Size: 1 << 20}))
	d := New(f, Config{Deadline: deadline, OnStall: func(op blockdev.Op, r blockdev.Range, since time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, stall{op, r, since})
	}})
	return d, f, func() []stall {
		mu.Lock()
		defer mu.Unlock()
		return append([]stall(nil), seen...)
	}
}

// faults.md D94: an operation that does not return is reported once, goes on, and ends the stall when it returns.
func TestD94EachKindOfHungOperationIsReportedOnce(t *testing.T) {
	at := blockdev.Range{Off: 4096, Len: 4096}
	for _, c := range []struct {
		name string
		want stall
		do   func(d *Dev) error
	}{
		{"read", stall{blockdev.OpRead, at, 0}, func(d *Dev) error { _, err := d.ReadAt(make([]byte, 4096), 4096); return err }},
		{"write", stall{blockdev.OpWrite, at, 0}, func(d *Dev) error { _, err := d.WriteAt(make([]byte, 4096), 4096); return err }},
		{"FUA", stall{blockdev.OpWrite, at, 0}, func(d *Dev) error { _, err := d.WriteFUA(make([]byte, 4096), 4096); return err }},
		{"vector", stall{blockdev.OpWrite, at, 0}, func(d *Dev) error {
			_, err := d.WriteVAt([][]byte{make([]byte, 96), make([]byte, 4000)}, 4096)
			return err
		}},
		{"zero", stall{blockdev.OpZero, at, 0}, func(d *Dev) error { return d.Zero(at, true) }},
		{"flush", stall{blockdev.OpFlush, blockdev.Range{}, 0}, func(d *Dev) error { return d.Flush() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hang(t, c.want, c.do) })
		})
	}
}

func hang(t *testing.T, want stall, do func(d *Dev) error) {
	d, f, stalls := watched()
	h := f.Add(faultdev.Rule{Stall: true})
	done := make(chan error, 1)
	go func() { done <- do(d) }()
	time.Sleep(deadline)
	synctest.Wait()
	if d.Stalled() || len(stalls()) != 0 || d.Outstanding() != 1 {
		t.Errorf("at the deadline: stalled %v, %v, outstanding %d", d.Stalled(), stalls(), d.Outstanding())
	}
	time.Sleep(10 * deadline)
	synctest.Wait()
	got := stalls()
	if !d.Stalled() || len(got) != 1 || got[0].op != want.op || got[0].r != want.r || d.Outstanding() != 1 {
		t.Errorf("past the deadline: stalled %v, %v, outstanding %d", d.Stalled(), got, d.Outstanding())
	} else if got[0].since <= deadline || got[0].since > deadline+deadline/8+time.Microsecond {
		t.Errorf("reported after %v, want within an eighth of %v", got[0].since, deadline)
	}
	h.Release()
	if err := <-done; err != nil {
		t.Errorf("the hung operation returned %v: it must not be abandoned", err)
	}
	if d.Stalled() || d.Outstanding() != 0 {
		t.Errorf("after return: stalled %v, outstanding %d", d.Stalled(), d.Outstanding())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// faults.md D93: slow is not hung, however many slow operations follow each other in one slot.
func TestD93SlowOperationsWithinTheDeadlineAreNotStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, stalls := watched()
		defer d.Close()
		f.Add(faultdev.Rule{Delay: deadline - time.Millisecond})
		for range 20 {
			if err := d.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if d.Stalled() || len(stalls()) != 0 {
			t.Errorf("stalled %v, %v", d.Stalled(), stalls())
		}
	})
}

func TestStallLastsUntilTheLastHungOperationReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, stalls := watched()
		defer d.Close()
		const ops = 3 * chunkSlots // more than the table begins with
		var handles []*faultdev.Handle
		var wg sync.WaitGroup
		for i := range int64(ops) {
			r := blockdev.Range{Off: i * 4096, Len: 4096}
			handles = append(handles, f.Add(faultdev.Rule{Stall: true, Range: r}))
			wg.Go(func() { _ = d.Zero(r, false) })
		}
		time.Sleep(2 * deadline)
		synctest.Wait()
		if d.Outstanding() != ops || len(stalls()) != ops {
			t.Errorf("outstanding %d, reported %d, want %d", d.Outstanding(), len(stalls()), ops)
		}
		for i, h := range handles {
			if !d.Stalled() {
				t.Fatalf("not stalled with %d operations hung", ops-i)
			}
			h.Release()
			synctest.Wait()
		}
		wg.Wait()
		if d.Stalled() || d.Outstanding() != 0 {
			t.Errorf("after all: stalled %v, outstanding %d", d.Stalled(), d.Outstanding())
		}
	})
}

// An operation marked while it leaves must not leave the device stalled for ever: the deadline is about as
// long as an operation takes, so the watcher and the operations meet all the time.
func TestMarkingRacesWithReturning(t *testing.T) {
	var reported atomic.Int64
	d := New(memdev.New(memdev.Config{Size: 1 << 20}), Config{Deadline: 8 * time.Microsecond, OnStall: func(blockdev.Op, blockdev.Range, time.Duration) { reported.Add(1) }})
	defer d.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := make([]byte, 64<<10)
			for range 500 {
				if _, err := d.ReadAt(p, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	d.look() // nothing is in flight: nothing may be found
	if d.Stalled() || d.Outstanding() != 0 {
		t.Errorf("stalled %v, outstanding %d after everything returned", d.Stalled(), d.Outstanding())
	}
	t.Logf("%d reported", reported.Load())
}

// Watching costs tens of nanoseconds beside the wrapped device's own time: one reading of the clock, two exchanges.
func BenchmarkRead(b *testing.B) {
	m := memdev.New(memdev.Config{Size: 1 << 20})
	d := New(m, Config{})
	defer d.Close()
	for _, dev := range []blockdev.Device{m, d} {
		b.Run(fmt.Sprintf("%T", dev), func(b *testing.B) {
			p := make([]byte, 512)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := dev.ReadAt(p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Each failed change is told of before its caller hears of it, and nothing else is.
func TestFailuresAreToldBeforeTheCallerHears(t *testing.T) {
	var told []blockdev.Op
	faults := faultdev.New(memdev.New(memdev.Config{Size: 1 << 20}))
	d := New(faults, Config{OnError: func(op blockdev.Op, err error) {
		if !errors.Is(err, faultdev.ErrInjected) {
			t.Errorf("told of %v", err)
		}
		told = append(told, op)
	}})
	defer d.Close()
	p := make([]byte, 4096)
	all := []func() error{
		func() error { _, err := d.WriteAt(p, 0); return err },
		func() error { _, err := d.WriteFUA(p, 0); return err },
		func() error { _, err := d.WriteVAt([][]byte{p}, 0); return err },
		func() error { return d.Zero(blockdev.Range{Len: 4096}, true) },
		func() error { return d.Flush() },
		func() error { _, err := d.ReadAt(p, 0); return err },
	}
	for _, do := range all {
		if err := do(); err != nil || len(told) > 0 {
			t.Fatalf("without a fault: %v, told %v", err, told)
		}
	}
	faults.Add(faultdev.Rule{Fail: true})
	for i, do := range all {
		if err := do(); err == nil || len(told) != min(i+1, 5) {
			t.Errorf("operation %d: %v, told %v", i, err, told)
		}
	}
}

package faultdev

import (
	"bytes"
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/blocktest"
)

func TestConformanceWithoutRules(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		return New(memdev.New(memdev.Config{Size: size}))
	})
}

const size = 1 << 20

func device() (*Dev, *memdev.Dev) {
	m := memdev.New(memdev.Config{Size: size})
	return New(m), m
}

// operations are one of each kind, on the second block.
var operations = []struct {
	name string
	op   blockdev.Op
	do   func(d *Dev) error
}{
	{"read", blockdev.OpRead, func(d *Dev) error { _, err := d.ReadAt(make([]byte, 4096), 4096); return err }},
	{"write", blockdev.OpWrite, func(d *Dev) error { _, err := d.WriteAt(make([]byte, 4096), 4096); return err }},
	{"FUA", blockdev.OpWrite, func(d *Dev) error { _, err := d.WriteFUA(make([]byte, 4096), 4096); return err }},
	{"vector", blockdev.OpWrite, func(d *Dev) error { _, err := d.WriteVAt([][]byte{make([]byte, 4096)}, 4096); return err }},
	{"zero", blockdev.OpZero, func(d *Dev) error { return d.Zero(blockdev.Range{Off: 4096, Len: 4096}, true) }},
	{"flush", blockdev.OpFlush, func(d *Dev) error { return d.Flush() }},
}

func TestErrorMeetsItsKindOfOperationAndNoOther(t *testing.T) {
	for _, rule := range operations {
		d, _ := device()
		h := d.Add(Rule{Op: rule.op, Err: syscall.EIO})
		for _, o := range operations {
			err := o.do(d)
			if met := errors.Is(err, syscall.EIO); met != (o.op == rule.op) {
				t.Errorf("rule for %v: %s = %v", rule.op, o.name, err)
			}
		}
		if h.Hits() == 0 || h.Hits() != d.Counts().Errors {
			t.Errorf("rule for %v: %d hits, counts %+v", rule.op, h.Hits(), d.Counts())
		}
		h.Remove()
		if err := rule.do(d); err != nil {
			t.Errorf("%s after Remove: %v", rule.name, err)
		}
	}
}

func TestRangeSkipAndTimesSelect(t *testing.T) {
	d, _ := device()
	d.Add(Rule{Op: blockdev.OpWrite, Range: blockdev.Range{Off: 8192, Len: 4096}, Skip: 1, Times: 2, Fail: true})
	at := func(off int64) bool {
		_, err := d.WriteAt(make([]byte, 4096), off)
		if err != nil && !errors.Is(err, ErrInjected) {
			t.Fatal(err)
		}
		return err != nil
	}
	got := []bool{at(0), at(8192), at(12288), at(8192 + 512), at(8192 - 512), at(8192)}
	want := []bool{false, false, false, true, true, false} // skipped; outside; met; met; used up
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("operation %d failed: %v, want %v", i, got[i], want[i])
		}
	}
}

func TestFailedWriteTouchesNothingUnlessApplied(t *testing.T) {
	for _, applied := range []bool{false, true} {
		d, m := device()
		d.Add(Rule{Op: blockdev.OpWrite, Fail: true, Applied: applied})
		data := bytes.Repeat([]byte{7}, 4096)
		if _, err := d.WriteAt(data, 0); !errors.Is(err, ErrInjected) {
			t.Fatalf("applied %v: %v", applied, err)
		}
		if got := read(t, m, 4096); bytes.Equal(got, data) != applied {
			t.Errorf("applied %v: the device holds %d", applied, got[0])
		}
	}
}

func read(t *testing.T, d blockdev.Device, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if _, err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestShortWriteDoesTheFirstHalfAndFails(t *testing.T) {
	d, m := device()
	d.Add(Rule{Short: true})
	data := bytes.Repeat([]byte{9}, 4096)
	if n, err := d.WriteAt(data, 0); n != 2048 || !errors.Is(err, ErrInjected) {
		t.Errorf("short write = %d, %v", n, err)
	}
	if got := read(t, m, 4096); !bytes.Equal(got[:2048], data[:2048]) || got[2048] != 0 {
		t.Error("the short write did not leave exactly its first half")
	}
	if n, err := d.ReadAt(make([]byte, 4096), 0); n != 2048 || err == nil {
		t.Errorf("short read = %d, %v", n, err)
	}
	if d.Counts().Shorts != 2 {
		t.Errorf("counts %+v", d.Counts())
	}
}

func TestRotChangesWhatIsReadAndNotTheDevice(t *testing.T) {
	d, m := device()
	h := d.Add(Rule{Rot: true})
	if got := read(t, d, 4096); bytes.Equal(got, make([]byte, 4096)) {
		t.Error("rot left the data alone")
	}
	if got := read(t, m, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("rot changed the device")
	}
	h.Remove()
	if got := read(t, d, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("rot stayed after Remove")
	}
	if d.Counts().Rots != 1 {
		t.Errorf("counts %+v", d.Counts())
	}
}

// faults.md D96: a disk that says "flushed" and was not.
func TestD96LostFlushIsReportedAsDone(t *testing.T) {
	d, m := device()
	d.Add(Rule{Op: blockdev.OpFlush, Lose: true})
	if _, err := d.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, m.Clone(memdev.CrashOptions{}), 1); got[0] != 0 {
		t.Error("the lost flush reached the device")
	}
	if d.Counts().Losses != 1 {
		t.Errorf("counts %+v", d.Counts())
	}
}

// faults.md D94: a hung disk; the write lands when it is released.
func TestD94StalledWriteWaitsForRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, m := device()
		h := d.Add(Rule{Op: blockdev.OpWrite, Stall: true})
		done := make(chan error, 1)
		go func() {
			_, err := d.WriteAt([]byte{5}, 0)
			done <- err
		}()
		synctest.Wait()
		if h.Waiting() != 1 || read(t, m, 1)[0] != 0 {
			t.Errorf("waiting %d, device holds %d", h.Waiting(), read(t, m, 1)[0])
		}
		if err := d.Flush(); err != nil { // others go on
			t.Error(err)
		}
		h.Release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if h.Waiting() != 0 || read(t, m, 1)[0] != 5 || d.Counts().Stalls != 1 {
			t.Errorf("after release: waiting %d, counts %+v", h.Waiting(), d.Counts())
		}
	})
}

func TestDelaySlowsAndClearEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := device()
		d.Add(Rule{Op: blockdev.OpRead, Delay: time.Second})
		began := time.Now()
		read(t, d, 1)
		if took := time.Since(began); took != time.Second {
			t.Errorf("the slow read took %v, want 1s", took)
		}
		go func() {
			time.Sleep(time.Millisecond)
			d.Clear()
		}()
		began = time.Now()
		read(t, d, 1)
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("the read ended by Clear took %v, want 1ms", took)
		}
	})
}

func TestRulesChangeUnderTraffic(t *testing.T) {
	d, _ := device()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := d.WriteAt(make([]byte, 512), 0); err != nil && !errors.Is(err, ErrInjected) {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 100 {
		h := d.Add(Rule{Fail: true})
		stall := d.Add(Rule{Stall: true, Skip: 2, Times: 1})
		for {
			changed := h.Changed()
			if h.Hits() >= 2 {
				break
			}
			<-changed
		}
		h.Remove()
		stall.Remove()
	}
	close(stop)
	wg.Wait()
	if d.Counts().Errors < 200 {
		t.Errorf("counts %+v, want at least 200 errors", d.Counts())
	}
}

package timed

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
)

// The watcher of an idle device has no timer, and whoever wants it to finds it awake in time.
func TestHungOperationIsFoundByAWatcherThatSlept(t *testing.T) { // R26
	synctest.Test(t, func(t *testing.T) {
		d, f, stalls := watched()
		for range 3 {
			time.Sleep(10 * deadline)
			if !d.asleep.Load() {
				t.Fatal("the watcher of an idle device is awake")
			}
			h := f.Add(faultdev.Rule{Stall: true, Times: 1})
			done := make(chan error, 1)
			before := len(stalls())
			go func() { done <- d.Flush() }()
			time.Sleep(deadline + deadline/8)
			synctest.Wait()
			if !d.Stalled() || len(stalls()) != before+1 {
				t.Fatalf("not found: %v", stalls())
			}
			h.Release()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Time in which the process was stopped before the watcher was awake is not the disk's either.
func TestStopWhileTheWatcherSleepsIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, stalls := watched()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s := d.slots.enter(blockdev.OpFlush, blockdev.Range{})
		time.Sleep(time.Hour) // stopped right here
		d.wake(s)
		synctest.Wait()
		if d.Stalled() || len(stalls()) > 0 {
			t.Errorf("the time of the stop counts as the disk's: %v", stalls())
		}
		time.Sleep(2 * deadline)
		synctest.Wait()
		if !d.Stalled() || len(stalls()) != 1 {
			t.Errorf("one that hangs after the stop is not found: %v", stalls())
		}
		d.leave(s)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Operations that come at the moment when the watcher falls asleep find it, or it finds them.
func TestFallingAsleepLosesNoOperation(t *testing.T) {
	for range 200 {
		d, f, stalls := watched()
		d.SetDeadline(4 * time.Millisecond)
		h := f.Add(faultdev.Rule{Stall: true, Times: 1})
		time.Sleep(time.Millisecond / 2)
		var op sync.WaitGroup
		op.Go(func() { _ = d.Flush() })
		for end := time.Now().Add(10 * time.Second); len(stalls()) == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a hung operation was not found in ten seconds")
			}
		}
		h.Release()
		op.Wait()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

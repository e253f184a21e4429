package timed

import (
	"testing"
	"testing/synctest"
	"time"

	"hacluster/blockdev/backend/faultdev"
)

// A new deadline counts for what is outstanding already, in both directions.
func TestDeadlineChangesForOperationsThatAreOutstanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, stalls := watched()
		d.SetDeadline(10 * deadline)
		h := f.Add(faultdev.Rule{Stall: true})
		done := make(chan error, 1)
		go func() { done <- d.Flush() }()
		time.Sleep(5 * deadline)
		synctest.Wait()
		if d.Stalled() {
			t.Errorf("stalled before the longer deadline: %v", stalls())
		}
		d.SetDeadline(deadline)
		time.Sleep(deadline)
		synctest.Wait()
		if !d.Stalled() || len(stalls()) != 1 {
			t.Errorf("past the shorter deadline: stalled %t, %v", d.Stalled(), stalls())
		}
		h.Release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

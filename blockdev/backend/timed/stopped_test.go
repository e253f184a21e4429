package timed

import (
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
)

// D93: a process that was stopped (SIGSTOP, a debugger, a machine without a processor to spare) in the middle of an
// operation finds much time gone when it runs again. That is not the disk's: the operation may have ended long ago.
func TestTimeInWhichTheProcessDidNotRunIsNoStall(t *testing.T) {
	faults := faultdev.New(memdev.New(memdev.Config{Size: 1 << 20}))
	told := 0
	d := New(faults, Config{Deadline: 8 * time.Hour, OnStall: func(blockdev.Op, blockdev.Range, time.Duration) { told++ }})
	defer d.Close()
	hung := faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Times: 1, Stall: true})
	done := make(chan error, 1)
	go func() { done <- d.Flush() }()
	for d.Outstanding() == 0 {
		time.Sleep(time.Millisecond)
	}
	pass := func(by time.Duration) { // this test is the watcher: its own one would come after an hour
		d.slots.base = d.slots.base.Add(-by)
		d.turn()
	}
	pass(100 * time.Hour)
	if d.Stalled() || told > 0 {
		t.Error("the time of a stop counts as the disk's")
	}
	for range 9 { // but a disk that hangs while the process runs is found out
		pass(time.Hour)
	}
	if !d.Stalled() || told != 1 {
		t.Errorf("after nine hours of eight stalled %t, told %d times", d.Stalled(), told)
	}
	hung.Remove()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d.Stalled() {
		t.Error("it is stalled after the operation returned")
	}
}

// One that began after the stop and before the watcher knew of it is watched from then on.
func TestOperationThatBeganBeforeTheStopWasNoticedIsWatched(t *testing.T) {
	faults := faultdev.New(memdev.New(memdev.Config{Size: 1 << 20}))
	d := New(faults, Config{Deadline: 8 * time.Hour})
	defer d.Close()
	hung := faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Times: 1, Stall: true})
	d.slots.base = d.slots.base.Add(-100 * time.Hour)
	done := make(chan error, 1)
	go func() { done <- d.Flush() }()
	for d.Outstanding() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 10 {
		d.turn()
		d.slots.base = d.slots.base.Add(-time.Hour)
	}
	if d.turn(); !d.Stalled() {
		t.Error("it hangs unnoticed")
	}
	hung.Remove()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

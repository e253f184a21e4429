package timed

import (
	"testing"
	"testing/synctest"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
)

// slowMap is a device that is long about saying where its data lies.
type slowMap struct {
	*memdev.Dev
	wait chan struct{}
}

func (d slowMap) Extents(r blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	<-d.wait
	return d.Dev.Extents(r, fn)
}

// A resync asks for extents before it reads: a disk whose metadata hangs is as hung as one whose data does (R26).
func TestExtentsThatHangAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalls := 0
		inner := slowMap{memdev.New(memdev.Config{Size: 1 << 20}), make(chan struct{})}
		d := New(inner, Config{Deadline: deadline, OnStall: func(blockdev.Op, blockdev.Range, time.Duration) { stalls++ }})
		done := make(chan error, 1)
		go func() {
			done <- d.Extents(blockdev.Range{Len: 1 << 20}, func(blockdev.Range, bool) bool {
				time.Sleep(10 * deadline) // the caller's time is its own
				return true
			})
		}()
		time.Sleep(2 * deadline)
		synctest.Wait()
		if !d.Stalled() || stalls != 1 {
			t.Errorf("past the deadline: stalled %t, %d were reported", d.Stalled(), stalls)
		}
		close(inner.wait)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d.Stalled() || stalls != 1 || d.Outstanding() != 0 {
			t.Errorf("after return: stalled %t, %d were reported, %d are outstanding", d.Stalled(), stalls, d.Outstanding())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// They are asked for in parts, and told as if they were not.
func TestManyExtentsAreToldInOrderAndWithoutGaps(t *testing.T) {
	inner := memdev.New(memdev.Config{Size: 1 << 20})
	d := New(inner, Config{})
	defer d.Close()
	for off := int64(0); off < 1<<20; off += 2 * blockdev.BlockSize {
		if _, err := d.WriteAt(make([]byte, blockdev.BlockSize), off); err != nil {
			t.Fatal(err)
		}
	}
	for _, most := range []int{1, maxExtents, maxExtents + 1, 1000} {
		at, n := int64(0), 0
		err := d.Extents(blockdev.Range{Len: 1 << 20}, func(e blockdev.Range, hole bool) bool {
			if e.Off != at || hole != (n%2 == 1) {
				t.Fatalf("extent %d is %v, hole %t", n, e, hole)
			}
			at = e.End()
			n++
			return n < most
		})
		if want := min(most, 256); err != nil || n != want || want == 256 && at != 1<<20 {
			t.Errorf("%d extents up to %d, %v, want %d", n, at, err, want)
		}
	}
}

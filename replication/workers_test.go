package replication

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestWorkersRunEachJobOnceAndNoMoreThanTheLimitAtATime(t *testing.T) {
	const limit, jobs = 6, 20000
	w := newWorkers(limit)
	var running, most, ran atomic.Int64
	var done, from sync.WaitGroup
	done.Add(jobs)
	job := jobFunc(func() {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		ran.Add(1)
		running.Add(-1)
		done.Done()
	})
	for range 4 { // now many wait, now none
		from.Go(func() {
			for range jobs / 4 {
				w.do(job)
			}
		})
	}
	from.Wait()
	done.Wait()
	w.close()
	w.wait()
	if ran.Load() != jobs || most.Load() > limit {
		t.Errorf("%d of %d jobs were run, up to %d at a time, limit %d", ran.Load(), jobs, most.Load(), limit)
	}
}

// A queue that always holds something keeps the memory of what it holds, not of all that went through.
func TestWorkersQueueDoesNotGrowWithWhatWentThrough(t *testing.T) {
	w := newWorkers(1)
	step := make(chan struct{})
	job := jobFunc(func() { <-step })
	for range 8 {
		w.do(job)
	}
	for range 10000 {
		step <- struct{}{}
		w.do(job)
	}
	w.mu.Lock()
	if n := cap(w.jobs); n > 64 {
		t.Errorf("room for %d jobs, 8 are waiting", n)
	}
	w.mu.Unlock()
	close(step)
	w.close()
	w.wait()
}

// A job handed over when all workers rest is run: one wake-up each, none lost.
func TestWorkersWakeUpForASingleJob(t *testing.T) {
	w := newWorkers(8)
	done := make(chan struct{}, 8)
	job := jobFunc(func() { done <- struct{}{} })
	for i := range 50000 {
		n := 1 + i%5
		for range n {
			w.do(job)
		}
		for range n {
			<-done
		}
	}
	w.close()
	w.wait()
}

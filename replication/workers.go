package replication

import "sync"

// workers runs operations that wait for a disk in goroutines of their own, a bounded number at a time. do waits while
// all are busy: that is the back pressure on whoever has more to write. It must not be called from inside a job.
type workers struct {
	free chan struct{} // one token for each worker
	goes sync.WaitGroup
}

func newWorkers(n int) *workers { return &workers{free: make(chan struct{}, n)} }

func (w *workers) do(job func()) {
	w.free <- struct{}{}
	w.goes.Go(func() {
		defer func() { <-w.free }()
		job()
	})
}

// close waits for what runs. Nothing is started any more.
func (w *workers) close() { w.goes.Wait() }

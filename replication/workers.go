package replication

import "sync"

// workers run what waits for a disk, a bounded number at a time, in the order in which it was handed over. do never
// waits: the queue is bounded by what callers have under way (a frontend's requests, maxTaken entries of a stream,
// a resync's copies), so a disk that hangs holds up nobody but those who wait for it.
type workers struct {
	limit int
	wake  chan struct{} // a token for each worker that is to look again; room for all, so that sending never waits
	goes  sync.WaitGroup
	begin func() // loop, as a value made once: one for each worker would be an allocation

	mu      sync.Mutex
	jobs    []job // from head on: what waits
	head    int
	running int
	idle    int // of running: wait for wake
	closed  bool
}

// job is one piece of work for a worker.
type job interface{ run() }

type jobFunc func()

func (f jobFunc) run() { f() }

// keepIdle is how many workers of a volume stay when there is nothing to do.
const keepIdle = 4

func newWorkers(limit int) *workers {
	w := &workers{limit: limit, wake: make(chan struct{}, limit)}
	w.begin = w.loop
	return w
}

// do has j run by a worker. After close, nothing is run any more.
func (w *workers) do(j job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if w.head > len(w.jobs)/2 && len(w.jobs) == cap(w.jobs) { // a queue that is never empty must not grow for ever
		n := copy(w.jobs, w.jobs[w.head:])
		clear(w.jobs[n:])
		w.jobs, w.head = w.jobs[:n], 0
	}
	w.jobs = append(w.jobs, j)
	switch {
	case w.idle > 0:
		w.idle--
		w.wake <- struct{}{}
	case w.running < w.limit:
		w.running++
		w.goes.Add(1)
		go w.begin()
	}
}

func (w *workers) loop() {
	defer w.goes.Done()
	for {
		j, ok := w.next()
		if !ok {
			return
		}
		if j == nil {
			<-w.wake
			continue
		}
		j.run()
	}
}

// next is what to do now; nil: wait for wake.
func (w *workers) next() (j job, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.head < len(w.jobs) {
		j = w.jobs[w.head]
		w.jobs[w.head] = nil
		if w.head++; w.head == len(w.jobs) {
			w.jobs, w.head = w.jobs[:0], 0
		}
		return j, true
	}
	if w.closed || w.idle >= keepIdle {
		w.running--
		return nil, false
	}
	w.idle++
	return nil, true
}

// close lets the workers end when the queue is empty; wait waits for that.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for ; w.idle > 0; w.idle-- {
		w.wake <- struct{}{}
	}
}

func (w *workers) wait() { w.goes.Wait() }

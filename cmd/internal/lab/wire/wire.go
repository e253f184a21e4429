// Package wire is a cable with a bad character: it carries Ethernet frames between two interfaces and delays, reorders,
// doubles or loses them on the way. Kernels without netem have nothing else for that. Program lab runs it as a process
// of its own, in the namespace of the switches, between a node's cable and the switch.
//
// Frames travel with the metadata that the kernel gives beside them (PACKET_VNET_HDR), so that checksums which a network
// card would have to make, and segments that it would have to cut, survive. The queue is bounded: what does not fit is
// lost, as on a real cable, and counted.
package wire

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Config is the character of a cable, the same in both directions.
type Config struct {
	Delay  time.Duration // of every frame
	Jitter time.Duration // of every frame, at random, in addition; frames overtake each other then
	// Reorder is how many of a hundred frames go at once, past those that are delayed.
	Reorder int
	// Double is how many of a hundred frames arrive twice, the second time after another Jitter or 1 ms.
	Double int
	// Loss is how many of a hundred frames are lost.
	Loss int
	Seed uint64
}

// Validate says what makes no sense.
func (c Config) Validate() error {
	for name, p := range map[string]int{"reorder": c.Reorder, "double": c.Double, "loss": c.Loss} {
		if p < 0 || p > 100 {
			return fmt.Errorf("%s %d: 0 to 100 percent are wanted", name, p)
		}
	}
	if c.Delay < 0 || c.Jitter < 0 || c.Delay+c.Jitter > time.Minute {
		return fmt.Errorf("delay %v and jitter %v: up to a minute is wanted", c.Delay, c.Jitter)
	}
	return nil
}

// Stats counts frames.
type Stats struct {
	Carried   uint64 `json:"carried"`
	Delayed   uint64 `json:"delayed"`   // by 1 ms or more
	Reordered uint64 `json:"reordered"` // sent before one that came earlier
	Doubled   uint64 `json:"doubled"`
	Lost      uint64 `json:"lost"`
	Overflow  uint64 `json:"overflow"` // lost because the queue was full
}

// port is one end: an interface that frames come from and go to. Read may be called concurrently with Write.
type port interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Close() error
}

const (
	maxFrame = 70 << 10 // a segment that was not cut yet, and its metadata
	maxQueue = 4096     // frames on their way in one direction
)

// Wire carries frames between two ends.
type Wire struct {
	cfg  Config
	ends [2]port

	carried, delayed, reordered, doubled, lost, overflow atomic.Uint64
}

// Stats tells what was done so far.
func (w *Wire) Stats() Stats {
	return Stats{w.carried.Load(), w.delayed.Load(), w.reordered.Load(), w.doubled.Load(), w.lost.Load(), w.overflow.Load()}
}

// Run carries frames until ctx ends or an end fails. It closes both ends.
func (w *Wire) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(ctx, func() {
		w.ends[0].Close()
		w.ends[1].Close()
	})
	defer unhook()
	var all sync.WaitGroup
	errs := make(chan error, 4)
	for i := range w.ends {
		q := newQueue()
		all.Go(func() {
			errs <- w.receive(ctx, w.ends[i], q, rand.New(rand.NewPCG(w.cfg.Seed, uint64(i))))
			cancel()
		})
		all.Go(func() {
			errs <- w.send(ctx, w.ends[1-i], q)
			cancel()
		})
	}
	<-ctx.Done()
	all.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// receive decides the fate of each frame.
func (w *Wire) receive(ctx context.Context, from port, q *queue, rnd *rand.Rand) error {
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for _, d := range w.fate(rnd) {
			if !q.put(frame{due: time.Now().Add(d), data: append([]byte(nil), buf[:n]...)}) {
				w.overflow.Add(1)
			}
		}
	}
}

// fate is when a frame arrives; more than once if doubled, never if lost.
func (w *Wire) fate(rnd *rand.Rand) []time.Duration {
	chance := func(percent int) bool { return percent > 0 && rnd.IntN(100) < percent }
	if chance(w.cfg.Loss) {
		w.lost.Add(1)
		return nil
	}
	d := w.cfg.Delay
	if w.cfg.Jitter > 0 {
		d += time.Duration(rnd.Int64N(int64(w.cfg.Jitter)))
	}
	if chance(w.cfg.Reorder) {
		d = 0
	}
	if !chance(w.cfg.Double) {
		return []time.Duration{d}
	}
	w.doubled.Add(1)
	return []time.Duration{d, d + max(w.cfg.Jitter, time.Millisecond)}
}

// send sends each frame when it is due.
func (w *Wire) send(ctx context.Context, to port, q *queue) error {
	var newest uint64
	for {
		f, ok := q.next(ctx)
		if !ok {
			return nil
		}
		if f.seq < newest {
			w.reordered.Add(1)
		}
		newest = max(newest, f.seq)
		if f.due.Sub(f.came) >= time.Millisecond {
			w.delayed.Add(1)
		}
		w.carried.Add(1)
		if _, err := to.Write(f.data); err != nil && ctx.Err() == nil {
			w.lost.Add(1) // the interface is down for a moment, or has no room: a cable loses then
		}
	}
}

// frame is on its way.
type frame struct {
	due, came time.Time
	seq       uint64
	data      []byte
}

// queue orders frames by the time at which they are due.
type queue struct {
	mu     sync.Mutex
	frames frames
	seq    uint64
	more   chan struct{} // has room for one: something was put
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1)} }

func (q *queue) put(f frame) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.frames) == maxQueue {
		return false
	}
	q.seq++
	f.seq, f.came = q.seq, time.Now()
	heap.Push(&q.frames, f)
	select {
	case q.more <- struct{}{}:
	default:
	}
	return true
}

// next waits for the frame that is due first.
func (q *queue) next(ctx context.Context) (frame, bool) {
	for {
		wait := time.Hour
		q.mu.Lock()
		if len(q.frames) > 0 {
			if wait = time.Until(q.frames[0].due); wait <= 0 {
				f := heap.Pop(&q.frames).(frame)
				q.mu.Unlock()
				return f, true
			}
		}
		q.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-q.more:
		case <-ctx.Done():
			t.Stop()
			return frame{}, false
		}
		t.Stop()
	}
}

// frames is a heap; equal times keep their order.
type frames []frame

func (f frames) Len() int { return len(f) }
func (f frames) Less(i, j int) bool {
	return f[i].due.Before(f[j].due) || f[i].due.Equal(f[j].due) && f[i].seq < f[j].seq
}
func (f frames) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *frames) Push(x any)   { *f = append(*f, x.(frame)) }
func (f *frames) Pop() any {
	last := (*f)[len(*f)-1]
	(*f)[len(*f)-1].data = nil
	*f = (*f)[:len(*f)-1]
	return last
}

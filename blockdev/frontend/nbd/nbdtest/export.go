// Package nbdtest helps tests of NBD servers and clients: a device in memory, an Export made from any blockdev.Device,
// a set of exports whose role can move, and a proxy that records what a client says. Only tests call it.
package nbdtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
)

// Export serves a device with a bounded pool of workers. Overlapping requests in flight at once take effect in an
// undefined order, unlike a volume's (R33).
type Export struct {
	dev      blockdev.Device
	jobs     chan *blockdev.Request // from Submit to workers; never closed
	quit     chan struct{}          // closed by Close
	shut     sync.Once
	workers  sync.WaitGroup
	readOnly atomic.Bool
	fastZero atomic.Bool
	text     atomic.Pointer[string]
	gone     chan struct{}
	moved    sync.Once

	open atomic.Bool
	mu   sync.Mutex
	wait chan struct{} // closed by Resume
}

var (
	_ nbd.Export     = (*Export)(nil)
	_ nbd.TryGater   = (*Export)(nil)
	_ nbd.FastZeroer = (*Export)(nil)
	_ nbd.Describer  = (*Export)(nil)
)

// SyncExport returns an Export of dev served by that many workers; with 0 the goroutine that submits does the work.
func SyncExport(dev blockdev.Device, workers int) *Export {
	e := &Export{dev: dev, quit: make(chan struct{}), gone: make(chan struct{}), wait: make(chan struct{})}
	e.open.Store(true)
	close(e.wait)
	if workers > 0 {
		e.jobs = make(chan *blockdev.Request, 1024)
	}
	for range workers {
		e.workers.Go(func() {
			for {
				select {
				case r := <-e.jobs:
					e.do(r)
				case <-e.quit:
					return
				}
			}
		})
	}
	return e
}

// Close ends the tenure and the workers. What they have not begun is never answered. The device stays open.
func (e *Export) Close() {
	e.Move()
	e.shut.Do(func() { close(e.quit) })
	e.workers.Wait()
}

// SetDescription takes effect for new connections.
func (e *Export) SetDescription(text string) { e.text.Store(&text) }

// Describe is what SetDescription said.
func (e *Export) Describe() string {
	if t := e.text.Load(); t != nil {
		return *t
	}
	return ""
}

// Size, ReadOnly, Gone, FastZero, Extents, Submit, Gate and TryGate make it an nbd.Export.
func (e *Export) Size() int64 { return e.dev.Size() }

// ReadOnly reports what SetReadOnly said.
func (e *Export) ReadOnly() bool { return e.readOnly.Load() }

// SetReadOnly takes effect for new connections.
func (e *Export) SetReadOnly(ro bool) { e.readOnly.Store(ro) }

// FastZero reports what SetFastZero said.
func (e *Export) FastZero(blockdev.Range, bool) bool { return e.fastZero.Load() }

// SetFastZero says whether zeroing is fast.
func (e *Export) SetFastZero(fast bool) { e.fastZero.Store(fast) }

// Gone is closed by Move.
func (e *Export) Gone() <-chan struct{} { return e.gone }

// Move ends the tenure.
func (e *Export) Move() { e.moved.Do(func() { close(e.gone) }) }

// Extents asks the device; one that knows no holes is all data.
func (e *Export) Extents(r blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	if m, ok := e.dev.(blockdev.Mapper); ok {
		return m.Extents(r, fn)
	}
	fn(r, false)
	return nil
}

// Submit hands the request to a worker.
func (e *Export) Submit(r *blockdev.Request) {
	if e.jobs == nil {
		e.do(r)
		return
	}
	select {
	case e.jobs <- r:
	case <-e.quit:
	}
}

func (e *Export) do(r *blockdev.Request) {
	r.Err = perform(e.dev, r)
	r.Done(r)
}

func perform(dev blockdev.Device, r *blockdev.Request) (err error) {
	switch r.Op {
	case blockdev.OpRead:
		_, err = dev.ReadAt(r.Buf.Bytes(), r.Range.Off)
	case blockdev.OpWrite:
		if r.FUA {
			_, err = dev.WriteFUA(r.Buf.Bytes(), r.Range.Off)
		} else {
			_, err = dev.WriteAt(r.Buf.Bytes(), r.Range.Off)
		}
	case blockdev.OpZero:
		if err = dev.Zero(r.Range, r.Unmap); err == nil && r.FUA {
			err = dev.Flush()
		}
	case blockdev.OpFlush:
		err = dev.Flush()
	}
	return err
}

// ErrMoved is what Gate returns after Move.
var ErrMoved = errors.New("role moved")

// TryGate reports whether Gate would return nil at once.
func (e *Export) TryGate() bool { return e.open.Load() && !e.isGone() }

func (e *Export) isGone() bool {
	select {
	case <-e.gone:
		return true
	default:
		return false
	}
}

// Gate waits while suspended.
func (e *Export) Gate(ctx context.Context) error {
	for !e.TryGate() {
		select {
		case <-e.gone:
			return ErrMoved
		case <-ctx.Done():
			return ctx.Err()
		case <-e.resumed():
		}
	}
	return nil
}

// resumed is closed when the gate opens, or is open already.
func (e *Export) resumed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wait
}

// Suspend closes the gate, as the end of a lease does.
func (e *Export) Suspend() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open.CompareAndSwap(true, false) {
		e.wait = make(chan struct{})
	}
}

// Resume opens the gate again.
func (e *Export) Resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open.CompareAndSwap(false, true) {
		close(e.wait)
	}
}

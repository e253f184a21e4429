package nbd

import (
	"context"
	"math/bits"
	"slices"
	"sync"

	"hacluster/blockdev"
)

// budget caps the data that the requests of all connections hold (R28). A reader that may not take more stops reading
// its socket, which stops its client. It cannot deadlock: what is held is given back by devices and writers, which never
// wait for a reader.
type budget struct {
	max     int64 // of all
	maxConn int64 // of one account
	share   int64 // what an account that holds nothing may take in any case

	mu      sync.Mutex
	used    int64
	waiting []*account // in order of arrival; at most one entry per connection
}

// account is one connection's part. Its fields belong to budget.mu.
type account struct {
	held    int64
	want    int64
	granted bool
	closed  bool          // abandoned: what is given back later counts no more
	ready   chan struct{} // one token when granted; only the connection's reader receives
}

func newAccount() *account { return &account{ready: make(chan struct{}, 1)} }

// take takes n bytes if that needs no waiting.
func (b *budget) take(a *account, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 || b.overConn(a, n) || !b.fits(a, n) {
		return false
	}
	b.takeLocked(a, n)
	return true
}

// acquire waits until n bytes may be held.
func (b *budget) acquire(ctx context.Context, a *account, n int64) error {
	b.mu.Lock()
	if len(b.waiting) == 0 && !b.overConn(a, n) && b.fits(a, n) {
		b.takeLocked(a, n)
		b.mu.Unlock()
		return nil
	}
	a.want, a.granted = n, false
	b.waiting = append(b.waiting, a)
	b.grantLocked()
	b.mu.Unlock()
	select {
	case <-a.ready:
		return nil
	case <-ctx.Done():
		b.cancel(a)
		return ctx.Err()
	}
}

// overConn: the account must first give back what it holds. One request is always let through.
func (b *budget) overConn(a *account, n int64) bool { return a.held > 0 && a.held+n > b.maxConn }

func (b *budget) fits(a *account, n int64) bool {
	return b.used == 0 || b.used+n <= b.max || (a.held == 0 && n <= b.share)
}

func (b *budget) takeLocked(a *account, n int64) {
	a.held += n
	b.used += n
}

// grantLocked serves the waiting in order. One that waits for its own answers to be read holds up nobody; one that
// waits for the server's memory holds up all but the small requests behind it, or a large one would never get its turn.
func (b *budget) grantLocked() {
	full := false
	b.waiting = slices.DeleteFunc(b.waiting, func(a *account) bool {
		small := a.held == 0 && a.want <= b.share
		if b.overConn(a, a.want) || (full && !small) {
			return false
		}
		if !b.fits(a, a.want) {
			full = true
			return false
		}
		b.takeLocked(a, a.want)
		a.granted = true
		a.ready <- struct{}{} // never blocks: a waits for exactly this token
		return true
	})
}

// cancel withdraws a's wish; if it was granted meanwhile, the bytes go back.
func (b *budget) cancel(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.granted {
		<-a.ready
		b.giveLocked(a, a.want)
		return
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(w *account) bool { return w == a })
	b.grantLocked()
}

// release gives n bytes back.
func (b *budget) release(a *account, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	if !a.closed {
		b.giveLocked(a, n)
	}
	b.mu.Unlock()
}

// abandon gives back all that a holds: requests whose end will not be reported any more belong to the volume.
func (b *budget) abandon(a *account) {
	b.mu.Lock()
	a.closed = true
	b.giveLocked(a, a.held)
	b.mu.Unlock()
}

func (b *budget) giveLocked(a *account, n int64) {
	a.held -= n
	b.used -= n
	if len(b.waiting) > 0 {
		b.grantLocked()
	}
}

// limit changes the caps. Who waits looks again.
func (b *budget) limit(all, conn int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.max, b.maxConn = all, conn
	b.grantLocked()
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// weight is what a Buf of n bytes really takes: pools keep powers of two.
func weight(n int64) int64 {
	if n <= blockdev.BlockSize {
		return blockdev.BlockSize
	}
	return 1 << bits.Len64(uint64(n-1))
}

package nbd

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func newBudget() *budget { return &budget{max: 1000, maxConn: 400, share: 50} }

// want starts an acquire and returns a flag that is set when it has been granted.
func want(t *testing.T, b *budget, a *account, n int64) *atomic.Bool {
	var ok atomic.Bool
	go func() {
		if err := b.acquire(t.Context(), a, n); err == nil {
			ok.Store(true)
		}
	}()
	synctest.Wait()
	return &ok
}

func TestBudgetServesInOrderAndLetsSmallOnesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		full := []*account{newAccount(), newAccount(), newAccount()}
		for _, a := range full {
			if !want(t, b, a, 330).Load() {
				t.Fatal("there is room")
			}
		}
		big, later, small := newAccount(), newAccount(), newAccount()
		bigOK, laterOK := want(t, b, big, 380), want(t, b, later, 60)
		if bigOK.Load() || laterOK.Load() {
			t.Fatal("granted beyond the limit")
		}
		if !want(t, b, small, 50).Load() {
			t.Fatal("the share of a connection that holds nothing is not guaranteed")
		}
		if want(t, b, small, 1).Load() {
			t.Fatal("the share was given twice, before those who wait")
		}
		b.release(full[0], 330)
		synctest.Wait()
		if bigOK.Load() || laterOK.Load() {
			t.Fatal("the later one overtook the big one, which would never get its turn")
		}
		b.release(full[1], 330)
		synctest.Wait()
		if !bigOK.Load() || !laterOK.Load() {
			t.Fatal("not granted although there is room")
		}
	})
}

func TestBudgetOneRequestAlwaysProceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		a, other := newAccount(), newAccount()
		if !want(t, b, a, 5000).Load() {
			t.Fatal("larger than everything, alone, and not let through")
		}
		more := want(t, b, a, 10)
		ok := want(t, b, other, 5000)
		if more.Load() || ok.Load() {
			t.Fatal("beyond the limits")
		}
		b.release(a, 5000)
		synctest.Wait()
		if !more.Load() {
			t.Fatal("not granted")
		}
		b.release(a, 10)
		synctest.Wait()
		if !ok.Load() {
			t.Fatal("not granted")
		}
	})
}

func TestBudgetConnectionAtItsOwnLimitHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		slow, good := newAccount(), newAccount()
		want(t, b, slow, 400)
		if want(t, b, slow, 100).Load() {
			t.Fatal("beyond the connection's limit")
		}
		if !want(t, b, good, 300).Load() {
			t.Fatal("held up by a connection that waits for itself")
		}
	})
}

func TestBudgetCancelAndAbandonGiveEverythingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		a, waiting := newAccount(), newAccount()
		want(t, b, a, 1000)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.acquire(ctx, waiting, 300) }()
		synctest.Wait()
		cancel()
		if err := <-done; err == nil {
			t.Fatal("granted")
		}
		b.abandon(a)
		b.release(a, 1000) // the late end of an abandoned request
		if n := b.inUse(); n != 0 || len(b.waiting) != 0 {
			t.Fatalf("%d in use, %d waiting", n, len(b.waiting))
		}
	})
}

func TestBudgetUnderContentionNeitherLeaksNorStops(t *testing.T) {
	b := newBudget()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			a := newAccount()
			var gives sync.WaitGroup
			for range 500 {
				n := 1 + rng.Int64N(600)
				ctx, cancel := context.WithCancel(context.Background())
				if rng.IntN(4) == 0 {
					gives.Go(cancel)
				}
				if b.acquire(ctx, a, n) == nil {
					gives.Go(func() { b.release(a, n) })
				}
				gives.Go(cancel)
			}
			gives.Wait()
		})
	}
	wg.Wait()
	if n := b.inUse(); n != 0 || len(b.waiting) != 0 {
		t.Fatalf("%d in use, %d waiting", n, len(b.waiting))
	}
}

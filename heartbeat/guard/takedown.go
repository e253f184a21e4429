package guard

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// takeDown ends all of a service whose lease ended at began: addresses first, so that nobody is answered, then the rest in reverse order
// for half of the guard's time, then whatever it takes. Until all is down it waits for no disk, no log and no holder that only has to end.
func (g *guard) takeDown(name string, s *service, began Instant) {
	g.mu.Lock()
	all, limit := s.up(), g.time
	g.mu.Unlock()
	left := func() time.Duration { return limit/2 - Now().Sub(began) }
	if left() > 0 {
		_ = g.killAll(slices.DeleteFunc(slices.Clone(all), func(h *held) bool { return h.spec.Kind != "address" }), left())
	}
	g.logAside(func() {
		g.cfg.Log.Warn("the lease of a service ended: it is taken down", "service", name, "resources", len(all))
	})
	slices.SortFunc(all, func(a, b *held) int { return b.order - a.order })
	for _, h := range all {
		if h.spec.Kind != "address" && left() > 0 && h.do(resource.Stop, left()) == nil {
			g.setDown(h)
		}
	}
	for {
		g.mu.Lock()
		rest := s.up()
		g.mu.Unlock()
		err := g.killAll(rest, limit/4)
		if err == nil {
			break
		}
		g.say(Reply{Taken: &Taken{Service: name, Took: Now().Sub(began), Err: err.Error()}})
		g.logAside(func() {
			g.cfg.Log.Error("a service without a lease cannot be taken down", "service", name, "error", err)
		})
		time.Sleep(tickPause)
	}
	took := Now().Sub(began)
	g.noteAside()
	for until := Now().Add(killPause); len(all) > 0; all = all[1:] { // so that what is started next finds its place free
		all[0].awaitFree(until.Sub(Now()))
	}
	g.say(Reply{Taken: &Taken{Service: name, Took: took}})
	g.cfg.Log.Warn("a service without a lease is down", "service", name, "took", took)
	g.mu.Lock()
	close(s.taking)
	s.taking = nil
	g.mu.Unlock()
}

// killAll kills resources, all at the same time.
func (g *guard) killAll(all []*held, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	errs := make([]error, len(all))
	var goes sync.WaitGroup
	for i, h := range all {
		goes.Go(func() {
			if errs[i] = h.kill(ctx, g.isHolder); errs[i] == nil {
				g.setDown(h)
			}
		})
	}
	goes.Wait()
	return errors.Join(errs...)
}

// setDown: nothing of the resource runs any more. Its place is free when its holder has ended, not before: that kills once more.
func (g *guard) setDown(h *held) {
	g.mu.Lock()
	was := h.down
	h.down = true
	g.mu.Unlock()
	if was {
		return
	}
	go func() {
		h.release()
		g.mu.Lock()
		if s := g.services[h.service]; s.held[h.order] == h {
			delete(s.held, h.order)
		}
		g.mu.Unlock()
		close(h.free)
	}()
}

// note writes the list of what runs or is about to. The newest list is written last: it is made up after the lists before it are written.
func (g *guard) note() error {
	g.noting.Lock()
	defer g.noting.Unlock()
	g.toNote.Store(false)
	var all []effect.Spec
	g.mu.Lock()
	for _, s := range g.services {
		for _, h := range s.up() {
			all = append(all, h.spec)
		}
		for _, p := range s.starting {
			all = append(all, p.spec)
		}
	}
	g.mu.Unlock()
	return writeList(g.cfg.Dir, all)
}

// noteAside has the list written, but waits for no disk: what it names too much is ended once more by the next guard, and nothing else.
func (g *guard) noteAside() {
	if g.toNote.Swap(true) {
		return // who waits for the lock writes ours too
	}
	go func() {
		if err := g.note(); err != nil {
			g.logAside(func() { g.cfg.Log.Error("the list of what runs is out of date", "error", err) })
		}
	}()
}

// logAside waits for no log. While one line hangs, others are left out: there is nowhere to write them.
func (g *guard) logAside(write func()) {
	if g.logging.Swap(true) {
		return
	}
	go func() {
		write()
		g.logging.Store(false)
	}()
}

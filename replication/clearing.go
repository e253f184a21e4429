package replication

import (
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
	"hacluster/blockdev/marks"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/maps"
	"hacluster/replication/wire"
)

// Coarse marks are given back in rounds, each with a number (R14; maps.Number says what a number proves):
//
//	primary    chooses, under its lock, the hot regions in which nothing differs from those who take part: Promise
//	standbys   store that they promise the number, and answer
//	primary    has all answers: stores the number as settled, clears, tells: Settled
//	standbys   store the number as settled, and clear
//
// A region that is written in between stays marked, on each side by its own look. A stream that ends, and a role that
// moves, end the round: what was promised and not settled is still marked.
//
// A round is run as soon as a replica is admitted, although it may clear nothing, if its number is not ours: the map of one
// that was replaced is new and has none. If it took the role with that it would take the map of every other member for
// one that went back, drop all of them, and be alone until everything was compared.

const (
	clearEvery = 10 * time.Second
	// clearLimit is how long a round may take before it is given up.
	clearLimit = time.Minute
	// hotBytes is how much may be marked before also those regions are given back that were in use lately: what a crash
	// leaves to compare is bounded by it.
	hotBytes = 256 << 30
	// idleRegions that wait for a flush only are worth one although clients write.
	idleRegions = 64
)

// clearing is a round of the primary.
type clearing struct {
	n       uint64
	began   cluster.Instant
	set     []string // the peers that take part
	slots   []int    // theirs
	waiting int
	heard   map[string]bool
	cover   []int           // slots for which "everything" is taken back
	covered map[string]bool // peers for which it is, here or there
}

// clearMarks begins a round when one is due, and gives one up that takes too long.
func (t *Tenure) clearMarks() {
	f, now := t.r.cfg.Marks, t.r.node.Now()
	if f == nil {
		return
	}
	t.mu.Lock()
	if c := t.clearing; c != nil && now.Sub(c.began) > clearLimit {
		t.abortClearingLocked()
	}
	due := !t.ended && t.handing == open && t.clearing == nil && now >= t.clearAt
	if due {
		t.clearAt = now.Add(clearEvery)
	}
	t.mu.Unlock()
	if !due {
		return
	}
	hot := bitmap.New(f.Regions()) // without the lock: it goes through all regions
	for i := range f.Regions() {
		if f.Marked(i) != 0 {
			hot.Set(i, i+1)
		}
	}
	t.mu.Lock()
	acts := t.beginClearingLocked(now, hot)
	t.mu.Unlock()
	t.run(acts, loop)
}

// beginClearingLocked chooses what may go and asks all who take part. nil: nothing to do.
func (t *Tenure) beginClearingLocked(now cluster.Instant, hot *bitmap.Bitmap) *actions {
	f, r := t.r.cfg.Marks, t.r
	peers := slices.DeleteFunc(t.core.Clearable(), func(m *maps.Peer) bool { // of which there is no map yet
		_, _, ok := r.slot(m.Name)
		return !ok
	})
	if t.ended || len(peers) == 0 {
		return nil
	}
	c := &clearing{began: now, heard: map[string]bool{}, covered: map[string]bool{}}
	stored := []maps.Number{{Promised: t.cleared}}
	for _, s := range f.Slots() {
		stored = append(stored, maps.Number(s.Number))
	}
	taken, uneven := false, false
	for _, m := range peers {
		p := t.peer(m.Name)
		slot, s, ok := r.slot(m.Name)
		if !ok || p.outbox == nil {
			return nil
		}
		c.set, c.slots = append(c.set, m.Name), append(c.slots, slot)
		stored = append(stored, p.number)
		uneven = uneven || p.number.Settled != s.Number.Settled
		if p.hot != nil {
			hot.Or(p.hot)
		}
		if s.Everything || p.whole {
			c.covered[m.Name] = t.regs.CoveredBy(func(g int64) bool { return f.Durable(g)&marks.Of(slot) != 0 }, m)
			taken = taken || c.covered[m.Name]
		}
		if s.Everything && c.covered[m.Name] {
			c.cover = append(c.cover, slot)
		}
	}
	c.n = maps.Next(stored...)
	chosen := t.regs.Choose(c.n, hot, peers, hotBytes/f.RegionSize())
	t.idle = t.regs.Waiting()
	if chosen.Count() == 0 && !taken && !uneven {
		t.regs.Abort()
		return nil
	}
	chunk, next := chosen.AppendChunk(nil, 0, wire.MaxMarks)
	chosen.Clear(next, chosen.Len()) // the next round has the rest
	t.clearing, t.cleared, c.waiting = c, c.n, len(peers)
	acts, l := actionLists.Get().(*actions), r.roster.Load()
	for i, m := range peers {
		w := wire.Clearing{Set: l.bits(r.cfg.Node) | l.bits(c.set...), Regions: chunk}
		for j, o := range peers {
			if j != i && m.Marked() == 0 && o.Marked() == 0 {
				w.Cover |= l.bits(o.Name)
			}
		}
		if c.covered[m.Name] {
			w.Cover |= l.bits(r.cfg.Node)
		}
		t.sendClearingLocked(acts, m.Name, c.n, &w)
	}
	return acts
}

// sendClearingLocked puts a Promise into the stream, behind all that was sent before; nil: a Settled.
func (t *Tenure) sendClearingLocked(acts *actions, peer string, n uint64, w *wire.Clearing) {
	p := t.peer(peer)
	if p.outbox == nil {
		return
	}
	frame := wire.Frame{Kind: wire.Settled, ID: n}
	if w != nil {
		payload := wire.AppendClearing(nil, *w)
		buf := blockdev.NewBuf(len(payload))
		defer buf.Free()
		copy(buf.Bytes(), payload)
		frame = wire.Frame{Kind: wire.Promise, ID: n, Range: blockdev.Range{Len: int64(len(payload))}, Sum: wire.Sum([][]byte{payload}), Buf: buf}
	}
	if p.outbox.Put(frame) != nil {
		p.closeLocked()
		return
	}
	acts.send = append(acts.send, p.outbox)
}

// promisedLocked takes a standby's answer. The last one has the round settled.
func (t *Tenure) promisedLocked(peer string, n uint64) {
	c := t.clearing
	if c == nil || c.n != n || c.heard[peer] {
		return
	}
	for _, name := range c.set {
		if name == peer {
			c.heard[peer] = true
			c.waiting--
			t.peer(peer).told = settledNews{} // it came behind that
		}
	}
	if c.waiting == 0 {
		c.waiting = -1
		t.goes.Go(func() { t.settle(c) })
	}
}

// settle stores the number, then clears, then has the standbys do the same.
func (t *Tenure) settle(c *clearing) {
	f := t.r.cfg.Marks
	for _, slot := range c.slots {
		if err := f.SetNumber(slot, marks.Number{Promised: c.n, Settled: c.n}); err != nil {
			t.r.log.Error("the number of a clearing cannot be stored: marks stay", "epoch", t.epoch, "error", err)
			t.mu.Lock()
			t.abortClearingLocked()
			t.mu.Unlock()
			return
		}
	}
	acts := actionLists.Get().(*actions)
	t.mu.Lock()
	if t.clearing != c {
		t.mu.Unlock()
		actionLists.Put(acts)
		return
	}
	t.clearing = nil
	gone := t.regs.End(c.n)
	clearRegions(f, gone, c.slots)
	var news *bitmap.Bitmap // for gone is used again in the next round
	if gone != nil {
		news = bitmap.New(gone.Len())
		news.Or(gone)
	}
	for _, name := range c.set {
		p := t.peer(name)
		p.told = settledNews{regions: news, whole: p.whole && c.covered[name]}
		if p.hot != nil && gone != nil {
			p.hot.AndNot(gone)
		}
		p.number, p.whole = maps.Number{Promised: c.n, Settled: c.n}, p.whole && !c.covered[name]
		t.sendClearingLocked(acts, name, c.n, nil)
	}
	t.mu.Unlock()
	t.run(acts, loop)
	for _, slot := range c.cover {
		if err := f.SetEverything(slot, false); err != nil {
			t.r.log.Error("that everything may differ cannot be taken back", "epoch", t.epoch, "error", err)
		}
	}
}

// settledNews is what a Settled takes back at a peer, as long as nothing came that says that it arrived there.
type settledNews struct {
	regions *bitmap.Bitmap
	whole   bool
}

// untoldLocked expects, after the end of a stream, that its last Settled was lost: what it would have cleared may still be
// marked there, and a later round has to choose it again.
func (p *peerLink) untoldLocked() {
	if p.hot != nil && p.told.regions != nil {
		p.hot.Or(p.told.regions)
	}
	p.whole = p.whole || p.told.whole
	p.told = settledNews{}
}

func clearRegions(f *marks.File, gone *bitmap.Bitmap, slots []int) {
	if gone == nil {
		return
	}
	var all marks.Slots
	for _, s := range slots {
		all |= marks.Of(s)
	}
	for g, ok := gone.Next(0); ok; g, ok = gone.Next(g + 1) {
		f.Clear(g, all)
	}
}

func (t *Tenure) abortClearingLocked() {
	if t.clearing != nil {
		t.clearing = nil
		t.regs.Abort()
	}
}

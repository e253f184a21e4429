package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
	"hacluster/replication/primary"
)

// line is the order of the clients' writes of one session in async, and what they were told of it. A standby holds a prefix of the
// order and lacks no more of what was told than the bound (R13); what it lacks when it is promoted is held where it is (R19).
type line struct {
	whole   map[string]bool // who has all that was told: the node of the session, who took over from it in order, or beside it in sync
	epoch   cluster.Epoch   // of the session
	behind  bool            // the newest promotion is of one that may lack something, or follows such a one that no session came of
	basis   cluster.Basis   // of that
	start   [blocks]value   // what every member had when the session began
	size    int             // in blocks
	told    []*toldWrite    // in the order in which clients were told
	must    [blocks]value   // acknowledged by a stronger mode, in the same session: nobody begins without
	since   uint64          // version of the record by which async came into force within the session; until its primary knows it, it acknowledges by a stronger mode
	changed bool            // a replica's mode changed within the session, with one in async before and after
	failed  []value         // clients were told of an error: each block is old or new
}

// toldWrite is a write that a client was told of, or is about to be.
type toldWrite struct {
	value    value
	from, to int
	at       cluster.Instant // by the primary's clock
}

func (t *toldWrite) bytes() int64 { return int64(t.to-t.from) * blockdev.BlockSize }

// lackedBy reports whether n's memory has neither the write nor a newer one of some block.
func (t *toldWrite) lackedBy(n *node) bool {
	for b := t.from; b < t.to; b++ {
		if n.disk.cache[b] < t.value {
			return true
		}
	}
	return false
}

// drawBound is mostly so narrow that writers feel it.
func (w *world) drawBound() primary.Bound {
	return primary.Bound{Bytes: int64(1+w.rng.IntN(8)) * blockdev.BlockSize, Time: w.between(20*time.Millisecond, time.Second),
		Patience: w.between(100*time.Millisecond, time.Second)}
}

// async reports whether a member may lack what clients were told of; firm has those that may not, beside its primary.
func (o *oracle) async() bool { v := o.w.truth.state.Volumes[volumeName]; return v.HasAsync() }

func (o *oracle) firm(n *node) bool {
	v := o.w.truth.state.Volumes[volumeName]
	return n.name == v.Primary || v.ModeBetween(v.Primary, n.name) != cluster.ModeAsync
}

func (m *entryMsg) lasting() bool { return m.kind == blockdev.OpFlush || m.fua }

// lag is what the primary tells the leader.
func (r *replica) lag() *cluster.Lag {
	s := r.sess
	if s == nil || !r.vol.HasAsync() {
		return nil
	}
	l := r.w.mostLost()
	for _, k := range s.links {
		l.Bytes = max(l.Bytes, s.core.Peer(k.peer.name).LagBytes)
	}
	return l
}

func (w *world) mostLost() *cluster.Lag {
	return &cluster.Lag{MaxBytes: w.bound.Bytes, MaxMs: w.bound.Time.Milliseconds()}
}

// mayTell: in async nothing is said without a lease, and none is in force when another was promoted (R11, R12).
func (o *oracle) mayTell(s *session) {
	if v := o.w.truth.state.Volumes[volumeName]; o.async() && v.Epoch > s.epoch {
		o.w.violate("R11: %s answers in epoch %d while epoch %d is committed", s.r.n.name, s.epoch, v.Epoch)
	}
}

// told notes a write that the Core decided to tell its client of, and checks what members lack of all such (R3, R13).
func (o *oracle) told(s *session, q *request) {
	if !o.async() || q.kind == blockdev.OpRead || q.kind == blockdev.OpFlush || s.epoch != o.served {
		return
	}
	l, now := &o.line, s.r.p.now()
	if q.err != nil {
		l.failed = append(l.failed, q.value)
		return
	}
	if s.core.Version() < l.since {
		for b := q.from; b < q.to; b++ {
			l.must[b] = max(l.must[b], q.value)
		}
		return
	}
	t := &toldWrite{q.value, q.from, q.to, now}
	l.told = append(l.told, t)
	v := o.w.truth.state.Volumes[volumeName]
	if v.Epoch != s.epoch {
		return
	}
	o.members(func(n *node) {
		if !t.lackedBy(n) {
			return // telling of it adds nothing
		}
		if n == s.r.n || n.super.failed || n.proc == nil || n.proc.number != v.Members[n.name].Process || n.proc.replica.failed {
			return
		}
		if o.firm(n) {
			return // judged when it is answered
		}
		if v.AckMode(v.Primary, n.name) == cluster.ModeSemisync && n.proc.replica.has(t) {
			return // told by the stronger mode, and with it has all before: it follows when it has written that
		}
		bytes, oldest, _ := l.lackedBy(n)
		o.w.counts.Ahead++
		if bytes > o.w.bound.Bytes {
			o.w.violate("R13: write %d is told of, and with it %s lacks %d bytes; the bound is %d", q.value, n.name, bytes, o.w.bound.Bytes)
		}
		if age := now.Sub(oldest); age > o.w.bound.Time {
			o.w.violate("R13: write %d is told of, and %s lacks what was told %v ago; the bound is %v", q.value, n.name, age, o.w.bound.Time)
		}
	})
}

// has reports whether the write is in the memory of the replica's process.
func (r *replica) has(t *toldWrite) bool {
	is := func(e *entry) bool { return e.msg.value == t.value }
	return slices.ContainsFunc(r.holding, is) || slices.ContainsFunc(r.taken, is)
}

// lackedBy is how much of what was told n lacks, and when the oldest and the newest of it were told.
func (l *line) lackedBy(n *node) (bytes int64, oldest, newest cluster.Instant) {
	oldest = math.MaxInt64
	for _, t := range l.told {
		if t.lackedBy(n) {
			bytes, oldest, newest = bytes+t.bytes(), min(oldest, t.at), max(newest, t.at)
		}
	}
	return bytes, oldest, newest
}

// follows checks that nothing is written that followed a flush of the stream before that is durable (R13).
func (o *oracle) follows(r *replica, e *entry) {
	if v := o.w.truth.state.Volumes[volumeName]; v.ModeBetween(e.in.hello.Primary, r.n.name) != cluster.ModeAsync || (o.line.since > 0 || o.line.changed) && !v.IsMember(r.n.name) {
		return // what was sent to one that left before the mode changed, and is on its way, is nobody's to be promoted by
	}
	for _, h := range r.holding {
		if h.in == e.in && h.msg.num < e.msg.num && h.msg.lasting() {
			o.w.violate("R13: %s begins entry %d while entry %d, which is to be durable before it, has not returned", r.n.name, e.msg.num, h.msg.num)
		}
	}
}

// promoted notes on what a promotion rests, before it is applied.
func (o *oracle) promoted(p *cluster.Promote, before *cluster.Volume) {
	if !before.HasAsync() {
		return
	}
	l := &o.line
	l.basis = p.Basis
	if p.Basis == cluster.BasisFirst || p.Basis == cluster.BasisHandOver || p.Basis == cluster.BasisForced {
		l.whole, l.behind = map[string]bool{p.Candidate: true}, false
		return
	}
	if l.behind = before.Lags(p.Candidate) || p.Candidate == before.Served && !l.whole[p.Candidate]; !l.behind {
		l.whole[p.Candidate] = true
	}
}

// longest checks that of the standbys that were heard, and can follow, none has a longer prefix than the one that is promoted (R6). What
// was heard last lately was also heard since the end of the lease, or would have been waited for.
func (o *oracle) longest(l *leader, p *cluster.Promote) {
	v := l.p.state.Volumes[volumeName]
	if p.Epoch != v.Epoch || !v.Lags(p.Candidate) || p.Basis == cluster.BasisFirst || p.Basis == cluster.BasisForced {
		return
	}
	for n := range v.Members {
		h, ok := l.heard[n]
		if ok && !v.Lags(n) && n != v.Primary && n != v.Served && o.w.now-h.at <= int64(lease/8) && h.Usable() && v.Unchanged(n, &h.Report) && p.Basis != cluster.BasisHandOver {
			o.w.violate("R6: %s is promoted, which may lack what clients were told of, and %s was heard, which lacks nothing", p.Candidate, n)
		}
	}
	if p.Basis != cluster.BasisUnchanged {
		return
	}
	has := func(n string) (newest value) {
		if _, err := fmt.Sscan(l.heard[n].Doing, &newest); err != nil {
			o.w.violate("R6: %s is promoted, and was not heard: %v", n, err)
		}
		return newest
	}
	for n := range v.Members {
		h, ok := l.heard[n]
		if !ok || !v.Lags(n) || n == p.Candidate || o.w.now-h.at > int64(lease/8) || !h.Usable() || !v.Unchanged(n, &h.Report) || h.LastSeq < h.Taken {
			continue
		}
		o.w.counts.Longer++
		if has(n) > has(p.Candidate) {
			o.w.violate("R6: %s is promoted with all up to write %d, and %s said that it has all up to write %d", p.Candidate, has(p.Candidate), n, has(n))
		}
	}
}

// follow checks what a session in async begins with: all that was told, or a prefix of the order that lacks no more than the
// bound, which whoever has more of is held for.
func (o *oracle) follow(s *session) {
	l, n := &o.line, s.r.n
	if o.lostMemory && !o.forced && !l.behind {
		o.forgot(n)
	}
	if !o.async() || o.forced || o.lostMemory && !l.behind {
		return
	}
	bytes, oldest, newest := l.lackedBy(n)
	if !l.behind {
		if bytes > 0 {
			o.w.violate("R30: %s begins after %q and lacks %d bytes that clients were told of", n.name, l.basis, bytes)
		}
		return
	}
	o.w.counts.Behind++
	for b := range min(l.size, o.size()) {
		if n.disk.cache[b] < l.must[b] {
			o.w.violate("R3: %s begins with write %d of block %d, and write %d was acknowledged before the mode was async", n.name, n.disk.cache[b], b, l.must[b])
		}
	}
	o.prefix(n)
	if bytes == 0 {
		return
	}
	o.w.counts.BehindBlocks += int(bytes / blockdev.BlockSize)
	if bytes > o.w.bound.Bytes || newest.Sub(oldest) > o.w.bound.Time {
		o.w.violate("R13: %s begins and lacks %d bytes that clients were told of within %v; the bound is %+v", n.name, bytes, newest.Sub(oldest), o.w.bound)
	}
	v := o.w.truth.state.Volumes[volumeName]
	most := int64(-1)
	for _, f := range o.w.truth.state.Failovers {
		if f.Epoch > l.epoch && f.Epoch <= s.epoch {
			most = max(most, f.RPOBytes)
		}
	}
	if most < bytes {
		o.w.violate("%s lacks %d bytes, the records of the failovers say %d at most", n.name, bytes, most)
	}
	for _, t := range l.told {
		for _, m := range o.w.data() {
			if m != n && v.NumberOf(m.name) > 0 && t.lackedBy(n) && t.anyOn(m) && !v.IsHeld(m.name) { // one without a replica keeps what it has
				o.w.violate("R19: %s begins without write %d, which %s has, and that is not held", n.name, t.value, m.name)
			}
		}
	}
}

// forgot checks that of what was acknowledged, and n has lost with its memory, nothing is on a replica in async that nobody holds
// (R19). A member settles with n, or left with its promotion and is held as well. With all in async, who follows another made durable
// what it has and the others are held from then on; one that its primary dropped is not.
func (o *oracle) forgot(n *node) {
	v := o.w.truth.state.Volumes[volumeName]
	mixed := slices.ContainsFunc(o.w.data(), func(m *node) bool { return m != n && o.firm(m) })
	if !v.HasAsync() || !mixed {
		return
	}
	for b := range o.size() {
		for _, m := range o.w.data() {
			if has := m.disk.cache[b]; m != n && has > n.disk.cache[b] && has == o.acked[b] && !o.firm(m) && v.NumberOf(m.name) > 0 && !v.IsMember(m.name) && !v.IsHeld(m.name) {
				o.w.violate("R19: %s lost write %d of block %d with its memory, %s has it, and is not held", n.name, has, b, m.name)
			}
		}
	}
}

func (t *toldWrite) anyOn(n *node) bool {
	for b := t.from; b < t.to; b++ {
		if n.disk.cache[b] == t.value {
			return true
		}
	}
	return false
}

// prefix checks that n's content is what it was at some place in the order of admission.
func (o *oracle) prefix(n *node) {
	from, to, below, above := value(0), value(math.MaxUint32), 0, 0
	for b := range min(o.line.size, o.size()) {
		v := n.disk.cache[b]
		if v < o.line.start[b] {
			o.w.violate("R13: %s begins with write %d of block %d, which every member had newer (%d) when the last session began", n.name, v, b, o.line.start[b])
		}
		if v > from {
			from, below = v, b
		}
		for _, z := range o.blocks[b].zones {
			if z.epoch == o.served && z.value > v && z.value-1 < to && !slices.Contains(o.line.failed, z.value) {
				to, above = z.value-1, b
			}
		}
	}
	if from > to {
		o.w.violate("R13: %s begins with no prefix of the order: write %d of block %d is there, and write %d of block %d, which came before it, is not",
			n.name, from, below, to+1, above)
	}
}

// begin starts a new line.
func (o *oracle) begin(s *session) {
	if !o.async() {
		return
	}
	o.line = line{whole: map[string]bool{s.r.n.name: true}, epoch: s.epoch, start: s.r.n.disk.cache, size: countOf(s.r.vol.Size)}
}

// loseTail has the primary go while its line to the standby is slow, and mostly come back later than its lease ends.
func (w *world) loseTail() {
	n := w.primary()
	if n == nil {
		return
	}
	s := w.standby(n)
	l := &w.links[n.index][s.index]
	l.slow = w.between(20*time.Millisecond, 400*time.Millisecond)
	w.after(w.between(0, 2*lease), func() {
		if n.proc == nil || w.calm {
			return
		}
		how, back := w.rng.IntN(5), w.between(0, 4*lease)
		if how == 4 {
			w.order(failover.Order{To: s.name})
			w.after(lease, func() { l.slow = 0 })
			return
		}
		l.slow = 0
		switch how {
		case 0:
			n.kill("killed")
			w.after(back, n.startProc)
		case 1:
			n.crash()
			w.after(back, n.boots)
			if w.rng.IntN(2) == 0 {
				w.beheadNext(n, s)
			}
		case 2:
			w.isolate(n, lease+back)
		default:
			w.stopFor(n, lease+back)
		}
	})
}

// beheadNext has next, who is to follow n, lose its power as soon as it serves, before it has flushed anything by itself.
func (w *world) beheadNext(n, next *node) {
	var look func()
	look = func() {
		switch {
		case w.calm || next.proc == nil || n.proc != nil:
			return
		case w.primary() != next || next.proc.replica.sess == nil:
			w.after(time.Millisecond, look)
			return
		}
		next.crash()
		w.after(w.between(0, lease), next.boots)
	}
	look()
}

// stopStandby has the standby stop in order while what it acknowledged is lost, and the primary go soon after it is back.
func (w *world) stopStandby() {
	n := w.primary()
	if n == nil {
		return
	}
	s := w.standby(n)
	if p := s.proc; p != nil {
		w.links[s.index][n.index].slow = w.between(5*time.Millisecond, 100*time.Millisecond)
		w.after(w.between(0, 50*time.Millisecond), func() {
			w.snapStream()
			p.soon(p.replica.stop)
		})
		w.after(w.between(100*time.Millisecond, 300*time.Millisecond), func() {
			s.startProc()
			if !w.calm {
				w.links[s.index][n.index].slow, w.links[n.index][s.index].slow = 0, w.between(0, 50*time.Millisecond)
			}
		})
		w.after(w.between(200*time.Millisecond, 700*time.Millisecond), func() {
			w.links[n.index][s.index].slow = 0
			if n.proc != nil && !w.calm {
				w.isolate(n, w.between(2*lease, 4*lease))
			}
		})
	}
}

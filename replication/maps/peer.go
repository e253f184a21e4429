package maps

import (
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

// Peer is the map that the primary keeps for one other replica, with what is in flight to it.
type Peer struct {
	Name string
	size int64

	behind   *bitmap.Bitmap
	live     *bitmap.Bitmap
	done     *bitmap.Bitmap // of live: the last write to it is complete on both, no flush was begun since
	flushing *bitmap.Bitmap // of live: like done when the flush began that is under way, and not written since

	window window // entries sent and not complete, in order
	acked  uint64 // num of the newest that the peer acknowledged
	copies int    // in the window
	cursor int64  // where Take goes on

	flushNum uint64 // of the flush that is under way on both; 0: none
	flushed  bool   // it succeeded there, and here
	wholly   bool   // nothing was behind when it began
}

func newPeer(name string, size int64) *Peer {
	n := Blocks(size)
	return &Peer{Name: name, size: size, behind: bitmap.New(n), live: bitmap.New(n), done: bitmap.New(n), flushing: bitmap.New(n)}
}

// fall puts the blocks [from, to) behind.
func (p *Peer) fall(from, to int64) {
	p.behind.Set(from, to)
	p.forget(from, to)
}

// forget takes the blocks [from, to) out of live. A block that was copied although it was clean is done and not live: a
// flush that is under way must not count for what is copied to it from now on.
func (p *Peer) forget(from, to int64) {
	if p.live.Count() > 0 {
		p.live.Clear(from, to)
	}
	p.unflush(from, to)
}

// unflush: the blocks are being written, so what was done or is being flushed says nothing about them any more.
func (p *Peer) unflush(from, to int64) {
	if p.done.Count() > 0 {
		p.done.Clear(from, to)
	}
	if p.flushing.Count() > 0 {
		p.flushing.Clear(from, to)
	}
}

// Load marks r behind: it is marked on stable storage. So it is with every region that is, when this process starts, and
// when the peer comes back as another process than the one that the map was kept with: a mark that left the memory was
// not numbered, and a new process may be one whose data and metadata were restored together.
func (p *Peer) Load(r blockdev.Range) { p.Missed(r) }

// Missed marks what is written or zeroed here and is not sent to the peer.
func (p *Peer) Missed(r blockdev.Range) { p.fall(touched(r)) }

// Unite takes the peer's own map of us in (R15). It never takes a mark away.
func (p *Peer) Unite(theirs *bitmap.Bitmap) {
	p.behind.Or(theirs)
	p.live.AndNot(theirs)
	p.done.AndNot(theirs)
	p.flushing.AndNot(theirs)
}

// Adopt takes over the map that this replica kept as a standby, of a peer that was a member with it and has not been
// restarted since: only what was not yet on every member (unsettled) is behind, the rest lacks flushes only (R29). Of
// any other peer use Unite.
func (p *Peer) Adopt(marks, unsettled *bitmap.Bitmap) {
	p.live.Or(marks)
	p.live.AndNot(p.behind)
	p.done.Or(p.live)
	p.Unite(unsettled)
}

// Sent marks a write or zeroing that goes to the peer as entry num. returned: its local part has ended already.
func (p *Peer) Sent(id, num uint64, r blockdev.Range, returned bool) {
	from, to := touched(r)
	setExcept(p.live, from, to, p.behind)
	p.unflush(from, to)
	p.window.push(entry{id: id, num: num, r: r, local: returned})
}

// Copying tells that the whole blocks of r go to the peer as entry num: a copy, read here in the order of all writes.
func (p *Peer) Copying(id, num uint64, r blockdev.Range) {
	if from, to := whole(r, p.size); r.Len == 0 || rangeOf(from, to, p.size) != r {
		panic(fmt.Sprintf("maps: a copy of %v is not made of whole blocks of a volume of %d", r, p.size))
	}
	p.copies++
	p.window.push(entry{id: id, num: num, r: r, copy: true})
}

// Equal tells that the whole blocks of r were read here and at the peer in this stream, and are alike: as good as copied.
// What is in flight to them makes no difference, for it reaches both; what was in flight at one of the reads leaves both
// with the same, in whatever order the reads and the writes were.
func (p *Peer) Equal(r blockdev.Range) {
	from, to := whole(r, p.size)
	for start, end, ok := p.behind.NextRange(from, to-from); ok && start < to; start, end, ok = p.behind.NextRange(end, to-end) {
		end = min(end, to)
		p.behind.Clear(start, end)
		p.live.Set(start, end)
		p.done.Set(start, end)
	}
}

// Dropped tells that the copy with that id could not be read: what goes to the peer in its place changes nothing.
func (p *Peer) Dropped(id uint64) { p.returned(id, false) }

// Acked tells that the peer has written every entry up to num, and made durable what asked for it.
func (p *Peer) acknowledged(num uint64) {
	p.acked = max(p.acked, num)
	p.advance()
}

// returned tells how the local part of an operation ended.
func (p *Peer) returned(id uint64, ok bool) {
	e := p.window.find(id)
	if e == nil {
		return // not sent to this peer, or the stream broke
	}
	if !ok {
		p.fall(touched(e.r)) // what it left here is undefined
		e.failed = true
	}
	e.local = true
	p.advance()
}

// advance completes what is written on both. Entries complete in any order; the peer's part is a prefix.
func (p *Peer) advance() {
	for i := 0; i < p.window.len(); i++ {
		e := p.window.at(i)
		if e.num > p.acked {
			break
		}
		if e.local && !e.complete {
			e.complete = true
			p.complete(e)
		}
	}
	for p.window.len() > 0 && p.window.at(0).complete {
		p.window.pop()
	}
}

// complete: the last write to the blocks of e may be on both now. Whether another is in flight is looked at when a flush
// begins.
func (p *Peer) complete(e *entry) {
	if e.copy {
		p.copies--
	}
	if e.failed {
		return
	}
	if from, to := whole(e.r, p.size); p.behind.Any(from, to) {
		p.behind.Clear(from, to)
		p.live.Set(from, to)
	}
	from, to := touched(e.r)
	setExcept(p.done, from, to, p.behind)
}

// Broke tells that the stream to the peer ended, or that what is written here may be lost: a flush of our own failed.
// Everything marked is sent again.
func (p *Peer) Broke() {
	p.behind.Or(p.live)
	empty(p.live)
	empty(p.done)
	empty(p.flushing)
	p.window.clear()
	p.acked, p.copies, p.cursor, p.flushNum, p.flushed = 0, 0, 0, 0, false
}

// Take hands out the next blocks to copy, at most limit bytes in a piece, in ascending order. Each is handed out once
// until every copy has ended; ok false: nothing to copy now. Copying has to follow.
func (p *Peer) Take(limit int64) (r blockdev.Range, ok bool) {
	from, to, ok := p.behind.NextRange(p.cursor, max(limit/blockSize, 1))
	if !ok && p.copies == 0 {
		from, to, ok = p.behind.NextRange(0, max(limit/blockSize, 1))
	}
	if !ok {
		return r, false
	}
	p.cursor = to
	return rangeOf(from, to, p.size), true
}

// Next is the first byte at or behind off that has to be copied; ok false: there is none.
func (p *Peer) Next(off int64) (at int64, ok bool) {
	b, ok := p.behind.Next((off + blockSize - 1) / blockSize)
	return b * blockSize, ok
}

// Within is the part of r from the first to the last block that has to be copied; ok false: there is none.
func (p *Peer) Within(r blockdev.Range) (hull blockdev.Range, ok bool) {
	from, to := touched(r)
	first, end := int64(-1), int64(0)
	for start, e, ok := p.behind.NextRange(from, to-from); ok && start < to; start, e, ok = p.behind.NextRange(e, to-e) {
		if first < 0 {
			first = start
		}
		if end = min(e, to); end == to {
			break
		}
	}
	if first < 0 {
		return hull, false
	}
	return rangeOf(first, end, p.size), true
}

// Lacks reports whether every block of r has to be copied.
func (p *Peer) Lacks(r blockdev.Range) bool {
	from, to := touched(r)
	start, end, ok := p.behind.NextRange(from, to-from)
	return ok && start == from && end >= to
}

// Behind is how many bytes have to be copied, Marked how many may differ; the last block counts as a whole one.
func (p *Peer) Behind() int64 { return p.behind.Count() * blockSize }

// Live is how many bytes wait for flushes only.
func (p *Peer) Live() int64 { return p.live.Count() * blockSize }

// Marked is how many bytes may differ.
func (p *Peer) Marked() int64 { return (p.behind.Count() + p.live.Count()) * blockSize }

// Unsettled reports whether r has a block that the peer may lack: of a member it is settled before it is answered (R29).
func (p *Peer) Unsettled(r blockdev.Range) bool {
	from, to := touched(r)
	return p.behind.Any(from, to)
}

// Ranges appends to into the blocks of r that the peer may lack, ascending.
func (p *Peer) Ranges(r blockdev.Range, into []blockdev.Range) []blockdev.Range {
	from, to := touched(r)
	for start, end, ok := p.behind.NextRange(from, to-from); ok && start < to; start, end, ok = p.behind.NextRange(end, to-end) {
		into = append(into, rangeOf(start, min(end, to), p.size))
		if end >= to {
			break
		}
	}
	return into
}

// MayDiffer reports whether a block of r is marked.
func (p *Peer) MayDiffer(r blockdev.Range) bool {
	from, to := touched(r)
	return p.behind.Any(from, to) || p.live.Any(from, to)
}

// Marks is a copy of all that is marked.
func (p *Peer) Marks() *bitmap.Bitmap {
	m := bitmap.New(p.behind.Len())
	m.Or(p.behind)
	m.Or(p.live)
	return m
}

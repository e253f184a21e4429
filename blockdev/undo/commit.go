package undo

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
)

// groupBytes is when a group is full, although more waits.
const groupBytes = 8 << 20

// lastBytes is how much the next process writes once more (rewriteLast): no program ever wrote a larger group.
const lastBytes = 16<<20 + recordSize + MaxRecord

// commit is the goroutine that makes groups. While one is being written, whatever gathers goes into the next, up to what makes
// it full. So at most two are in memory, one of them on its way to the disk. It ends when the area is closed.
func (l *live) commit() {
	defer close(l.ended)
	groups, spare := make(chan *group), make(chan *group, 2)
	spare <- &group{l: l}
	spare <- &group{l: l}
	var writes sync.WaitGroup
	writes.Go(func() { l.write(groups, spare) })
	content := blockdev.NewBuf(int(min(MaxRecord, l.head.size)))
	defer content.Free()
	m := maker{l: l, content: content.Bytes(), groups: groups, spare: spare, group: <-spare}
	m.run()
	close(groups)
	writes.Wait()
}

// maker makes groups of what waits.
type maker struct {
	l       *live
	content []byte        // for what is read
	groups  chan<- *group // to be written, in order
	spare   <-chan *group // that were
	*group                // that is being made
}

func (m *maker) run() {
	var items []item
	for open := true; open; {
		groups, holds := m.groups, len(m.buf) > 0
		if !holds && len(m.items) == 0 {
			groups = nil
		}
		select {
		case groups <- m.group:
			m.handedOn(holds)
		case _, open = <-m.l.kick:
			items = m.l.waiting(items)
			m.addAll(items)
			clear(items)
		}
	}
	if len(m.items) > 0 {
		m.groups <- m.group
	}
}

// waiting takes what waits, and gives room for more.
func (l *live) waiting(room []item) (items []item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	items, l.queue = l.queue, room[:0]
	return items
}

// write is the goroutine that writes groups, one after the other.
func (l *live) write(groups <-chan *group, spare chan<- *group) {
	for g := range groups {
		err := l.failure()
		if err == nil {
			err = g.log()
		}
		for _, it := range g.items {
			it.ended(err)
		}
		clear(g.items)
		g.buf, g.ranges, g.items, g.failed = g.buf[:0], g.ranges[:0], g.items[:0], nil
		spare <- g
	}
}

func (it *item) ended(err error) {
	it.old.free()
	it.w.Logged(err)
}

// group is what is written and flushed together.
type group struct {
	l      *live
	buf    []byte // begins at a page, for disks that take no other memory
	last   record // the last one in it
	at     int    // where that is
	ranges []blockdev.Range
	items  []item // that wait for it, or for it and others before it
	failed error  // why it was not made
}

// log makes the group durable. A failure is final: what was written of the group is cut off, so that nobody takes it for
// durable who finds it in the page cache.
func (g *group) log() error {
	l, err := g.l, g.failed
	if err == nil {
		err = g.write()
	}
	if err == nil {
		return nil
	}
	if cut := l.store.Truncate(l.end); cut != nil {
		err = errors.Join(err, cut)
	}
	if !errors.Is(err, ErrNoRoom) {
		err = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
	return err
}

// addAll puts items into the group, and into those after it when it is full. After one that failed, nothing is read any more.
func (m *maker) addAll(items []item) {
	for _, it := range items {
		if m.failed == nil {
			m.failed = m.addItem(it)
		}
		m.items = append(m.items, it)
	}
}

func (m *maker) addItem(it item) error {
	from := it.at.Off / blockdev.BlockSize * blockdev.BlockSize
	to := min((it.at.End()+blockdev.BlockSize-1)/blockdev.BlockSize*blockdev.BlockSize, m.l.head.size)
	for from < to {
		if err := m.l.failure(); err != nil {
			return err
		}
		next, ok := m.l.missing(blockdev.Range{Off: from, Len: to - from})
		if !ok {
			return nil
		}
		add := m.add
		if it.old.covers(next) {
			add = func(at blockdev.Range) error { return m.addKnown(at, it.old.of(at)) }
		}
		if err := add(next); err != nil {
			return err
		}
		from = next.End()
	}
	return nil
}

// missing is the first part of a range that is neither logged nor in the group that is being made.
func (l *live) missing(in blockdev.Range) (blockdev.Range, bool) {
	from, to := in.Off/blockdev.BlockSize, in.End()/blockdev.BlockSize
	for from < to {
		start, end, ok := l.queued.NextRange(from, to-from)
		switch {
		case !ok || start >= to:
			return blockdev.Range{Off: from * blockdev.BlockSize, Len: (to - from) * blockdev.BlockSize}, true
		case start > from:
			return blockdev.Range{Off: from * blockdev.BlockSize, Len: (start - from) * blockdev.BlockSize}, true
		}
		from = end
	}
	return blockdev.Range{}, false
}

// add reads the old content of a range: what is known to be a hole is not read.
func (m *maker) add(at blockdev.Range) error {
	var all []extent
	err := m.l.src.Extents(at, func(r blockdev.Range, hole bool) bool {
		all = append(all, extent{r, hole})
		return true
	})
	if err != nil {
		return fmt.Errorf("ask which of %v holds data: %w", at, err)
	}
	for _, e := range blocks(at, all) {
		if e.hole {
			if err := m.put(e.Range, nil); err != nil {
				return err
			}
			continue
		}
		for off := e.Off; off < e.End(); off += MaxRecord {
			if err := m.l.failure(); err != nil {
				return err // it was closed or given up: a range may be the whole volume
			}
			p := m.content[:min(MaxRecord, e.End()-off)]
			if _, err := m.l.src.ReadAt(p, off); err != nil {
				return fmt.Errorf("read the old content of %v: %w", blockdev.Range{Off: off, Len: int64(len(p))}, err)
			}
			if err := m.put(blockdev.Range{Off: off, Len: int64(len(p))}, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// addKnown is add for content that was read before: zeroes take no room, as holes take none.
func (m *maker) addKnown(at blockdev.Range, content []byte) error {
	for len(content) > 0 {
		n, isZero := run(content)
		p := content[:n]
		if isZero {
			p = nil
		}
		if err := m.put(blockdev.Range{Off: at.Off, Len: int64(n)}, p); err != nil {
			return err
		}
		content = content[n:]
		at.Off += int64(n)
	}
	return nil
}

// run is how many bytes of whole blocks at the beginning of content are all zeroes, or of blocks that none of is; of those
// no more than go into a record.
func run(content []byte) (n int, isZero bool) {
	isZero = zero(content[:blockdev.BlockSize])
	for n = blockdev.BlockSize; n < len(content) && (isZero || n < MaxRecord); n += blockdev.BlockSize {
		if zero(content[n:n+blockdev.BlockSize]) != isZero {
			break
		}
	}
	return n, isZero
}

func (l *live) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

type extent struct {
	blockdev.Range
	hole bool
}

// blocks makes extents of whole blocks of those that a device tells: a block of which a part is data is data.
func blocks(at blockdev.Range, told []extent) (all []extent) {
	for off := at.Off; off < at.End(); {
		for len(told) > 0 && told[0].End() <= off {
			told = told[1:]
		}
		block := blockdev.Range{Off: off, Len: blockdev.BlockSize}
		hole := len(told) > 0 && told[0].hole && told[0].Off <= off && told[0].End() >= block.End()
		if hole || len(told) > 0 && !told[0].hole { // as far as this extent goes, in whole blocks
			if n := (min(told[0].End(), at.End()) - off) / blockdev.BlockSize * blockdev.BlockSize; n > 0 {
				block.Len = n
			}
		}
		if n := len(all); n > 0 && all[n-1].hole == hole {
			all[n-1].Len += block.Len
		} else {
			all = append(all, extent{block, hole})
		}
		off = block.End()
	}
	return all
}

// put adds a record, after it has handed the group on if that is full. Content of zeroes takes no room.
func (m *maker) put(at blockdev.Range, content []byte) error {
	l := m.l
	r := record{at: at, zero: content == nil || zero(content)}
	if !r.zero {
		r.sum = crc32.Checksum(content, castagnoli)
	}
	if len(m.buf) >= groupBytes {
		m.groups <- m.group
		m.handedOn(true)
	}
	r.seq, r.group = l.last.seq+1, next(&l.last)
	m.makeRoom(recordSize + int(r.payload()))
	m.at = len(m.buf)
	m.buf = append(m.buf, zeroes[:recordSize]...)
	if !r.zero {
		m.buf = append(m.buf, content...)
	}
	r.encode(m.buf[m.at:], l.head.tag)
	l.last, m.last = r, r
	m.ranges = append(m.ranges, at)
	l.set(l.queued, at)
	return nil
}

// handedOn goes on with the next group. holds: the one that was handed on holds records.
func (m *maker) handedOn(holds bool) {
	if holds {
		m.l.last.last = true
	}
	m.group = <-m.spare
}

// makeRoom has n more bytes fit into the group. From a megabyte on there is room for a whole group at once: growing bit by bit
// would copy, and have the kernel clear, many times what is logged of a short resync.
func (g *group) makeRoom(n int) {
	need := len(g.buf) + n
	if need <= cap(g.buf) {
		return
	}
	size := groupBytes + recordSize + MaxRecord
	if need <= MaxRecord {
		size = 1 << bits.Len(uint(need-1))
	}
	g.buf = append(blockdev.Aligned(size)[:0], g.buf...)
}

// write makes the group durable, and only then its blocks count as logged.
func (g *group) write() error {
	l := g.l
	if len(g.ranges) == 0 {
		return nil
	}
	g.last.last = true
	g.last.encode(g.buf[g.at:], l.head.tag)
	if l.end+int64(len(g.buf)) > l.limit {
		return fmt.Errorf("%w: its limit is %d bytes, of which %d are taken: raise undo_limit of the volume in cluster.hcl", ErrNoRoom, l.limit, l.end)
	}
	failpoint.Hit(failpoint.UndoLog)
	if _, err := l.store.WriteAt(g.buf, l.end); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	failpoint.Hit(failpoint.UndoLogWritten)
	l.mu.Lock()
	relaxed := l.relaxed
	l.mu.Unlock()
	if !relaxed {
		if err := l.store.Flush(); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	failpoint.Hit(failpoint.UndoLogged)
	l.end += int64(len(g.buf))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = l.end
	for _, r := range g.ranges {
		l.set(l.logged, r)
	}
	return nil
}

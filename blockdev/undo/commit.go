package undo

import (
	"errors"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
)

// groupBytes is when a group is written, although more waits. The next process writes as much once more (rewriteLast): with
// less than what an older program wrote, it would leave out a part of the last group.
const groupBytes = 16 << 20

// commit is the goroutine that writes groups: whatever gathered while one was being written is the next. It ends when the
// area is closed.
func (l *live) commit() {
	defer close(l.ended)
	var items, spare []item
	content := blockdev.NewBuf(int(min(MaxRecord, l.head.size)))
	defer content.Free()
	for range l.kick {
		l.mu.Lock()
		items, l.queue = l.queue, spare[:0]
		err := l.failed
		l.mu.Unlock()
		if err == nil {
			err = l.log(items, content.Bytes())
		}
		for _, it := range items {
			it.ended(err)
		}
		clear(items)
		spare = items
	}
	l.mu.Lock()
	items, l.queue = l.queue, nil
	l.mu.Unlock()
	for _, it := range items {
		it.ended(ErrClosed)
	}
}

func (it *item) ended(err error) {
	it.old.free()
	it.w.Logged(err)
}

// group is what is written and flushed together.
type group struct {
	l       *live
	content []byte
	ranges  []blockdev.Range
	at      int // where the last record is in the buffer
}

// log makes the old content of the items durable. A failure is final: what was written of the group is cut off, so that
// nobody takes it for durable who finds it in the page cache.
func (l *live) log(items []item, content []byte) error {
	g := group{l: l, content: content}
	err := g.addAll(items)
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

func (g *group) addAll(items []item) error {
	for _, it := range items {
		from := it.at.Off / blockdev.BlockSize * blockdev.BlockSize
		to := min((it.at.End()+blockdev.BlockSize-1)/blockdev.BlockSize*blockdev.BlockSize, g.l.head.size)
		for from < to {
			next, ok := g.l.missing(blockdev.Range{Off: from, Len: to - from})
			if !ok {
				break
			}
			add := g.add
			if it.old.covers(next) {
				add = func(at blockdev.Range) error { return g.addKnown(at, it.old.of(at)) }
			}
			if err := add(next); err != nil {
				return err
			}
			from = next.End()
		}
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
func (g *group) add(at blockdev.Range) error {
	var all []extent
	err := g.l.src.Extents(at, func(r blockdev.Range, hole bool) bool {
		all = append(all, extent{r, hole})
		return true
	})
	if err != nil {
		return fmt.Errorf("ask which of %v holds data: %w", at, err)
	}
	for _, e := range blocks(at, all) {
		if e.hole {
			if err := g.put(e.Range, nil); err != nil {
				return err
			}
			continue
		}
		for off := e.Off; off < e.End(); off += MaxRecord {
			if err := g.l.failure(); err != nil {
				return err // it was closed or given up: a range may be the whole volume
			}
			p := g.content[:min(MaxRecord, e.End()-off)]
			if _, err := g.l.src.ReadAt(p, off); err != nil {
				return fmt.Errorf("read the old content of %v: %w", blockdev.Range{Off: off, Len: int64(len(p))}, err)
			}
			if err := g.put(blockdev.Range{Off: off, Len: int64(len(p))}, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// addKnown is add for content that was read before: zeroes take no room, as holes take none.
func (g *group) addKnown(at blockdev.Range, content []byte) error {
	for len(content) > 0 {
		n, isZero := run(content)
		p := content[:n]
		if isZero {
			p = nil
		}
		if err := g.put(blockdev.Range{Off: at.Off, Len: int64(n)}, p); err != nil {
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

// put adds a record, and writes the group when it is full. Content of zeroes takes no room.
func (g *group) put(at blockdev.Range, content []byte) error {
	l := g.l
	r := record{seq: l.last.seq + 1, group: next(&l.last), at: at, zero: content == nil || zero(content)}
	if !r.zero {
		r.sum = crc32.Checksum(content, castagnoli)
	}
	g.at = len(l.buf)
	l.makeRoom(recordSize + len(content))
	l.buf = append(l.buf, zeroes[:recordSize]...)
	if !r.zero {
		l.buf = append(l.buf, content...)
	}
	r.encode(l.buf[g.at:], l.head.tag)
	l.last = r
	g.ranges = append(g.ranges, at)
	l.set(l.queued, at)
	if len(l.buf) >= groupBytes {
		return g.write()
	}
	return nil
}

// makeRoom has n more bytes fit into the group. From a megabyte on there is room for a whole group at once: growing bit by bit
// would copy, and have the kernel clear, many times what is logged of a short resync.
func (l *live) makeRoom(n int) {
	if need := len(l.buf) + n; need > cap(l.buf) && need > MaxRecord {
		l.buf = append(make([]byte, 0, groupBytes+recordSize+MaxRecord), l.buf...)
	}
}

// write makes the group durable, and only then its blocks count as logged.
func (g *group) write() error {
	l := g.l
	if len(g.ranges) == 0 {
		return nil
	}
	l.last.last = true
	l.last.encode(l.buf[g.at:], l.head.tag)
	if l.end+int64(len(l.buf)) > l.limit {
		return fmt.Errorf("%w: its limit is %d bytes, of which %d are taken: raise undo_limit of the volume in cluster.hcl", ErrNoRoom, l.limit, l.end)
	}
	failpoint.Hit(failpoint.UndoLog)
	if _, err := l.store.WriteAt(l.buf, l.end); err != nil {
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
	l.end += int64(len(l.buf))
	l.buf = l.buf[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = l.end
	for _, r := range g.ranges {
		l.set(l.logged, r)
	}
	g.ranges = g.ranges[:0]
	return nil
}

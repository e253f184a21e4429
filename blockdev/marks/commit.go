package marks

import (
	"slices"
	"sync/atomic"
)

// commit is the goroutine that writes groups: whatever gathered while one was being written is the next. It ends when
// the file is closed and nothing waits.
func (f *File) commit() {
	defer close(f.ended)
	var g group
	var buf []byte
	for range f.kick {
		f.writing <- struct{}{}
		var list []int64
		var failed error
		f.mu.Lock()
		g, f.next = f.next, group{g.marks[:0], g.waiters[:0]}
		if failed = f.failed; failed == nil && (len(g.marks) > 0 || f.closing) { // else who waits did so for the group before
			list, buf = f.cutLocked(buf[:0])
		}
		closing := f.closing
		f.mu.Unlock()
		if len(list) > 0 {
			failed = f.watched(func() error { return f.writePages(list, buf) })
		}
		err := f.settle(&g, failed)
		<-f.writing
		for i, w := range g.waiters {
			g.waiters[i] = nil
			w.Marked(err)
		}
		if closing {
			return
		}
	}
}

// cutLocked takes the dirty pages, in order, with what they hold at this moment.
func (f *File) cutLocked(buf []byte) (list []int64, out []byte) {
	list = f.changed
	f.changed = nil
	slices.Sort(list)
	for _, p := range list {
		f.dirty[p] = false
		at := len(buf)
		buf = append(buf, make([]byte, pageSize)...)
		f.encodePage(buf[at:], p)
	}
	return list, buf
}

func (f *File) encodePage(p []byte, page int64) {
	for c := range int64(pageCells) {
		cell := p[c*cellSize:][:cellSize]
		first := page*pageRegions + c*cellRegions
		for i := first; i < min(first+cellRegions, int64(len(f.state))); i++ {
			putMask(cell, int(i-first), Slots(f.state[i].Load()>>16))
		}
		sealCell(cell, uint32(page*pageCells+c), f.head.tag)
	}
}

// writePages writes runs of pages in one piece each, and flushes once.
func (f *File) writePages(list []int64, buf []byte) error {
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n] == list[0]+int64(n) {
			n++
		}
		if _, err := f.store.WriteAt(buf[:n*pageSize], tableAt+list[0]*pageSize); err != nil {
			return err
		}
		list, buf = list[n:], buf[n*pageSize:]
	}
	return f.store.Flush()
}

// settle makes the group's marks count as durable, those that were not cleared meanwhile, and returns what its waiters
// are told.
func (f *File) settle(g *group, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failLocked(err)
		return f.usableLocked()
	}
	for _, m := range g.marks {
		setDurable(&f.state[m.region], m.slots)
	}
	return nil
}

func setDurable(s *atomic.Uint32, slots Slots) {
	old := s.Load()
	s.Store(old | uint32(slots&Slots(old>>16)))
}

func (f *File) failLocked(err error) {
	if f.failed == nil {
		f.failed = err
	}
}

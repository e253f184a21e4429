package unflushed

// seg is what a range held before a change. Without data it held zeroes.
type seg struct {
	off, n int64
	data   []byte
}

func (s seg) end() int64 { return s.off + s.n }

// part is the part of s within [off, end), empty when they do not meet.
func (s seg) part(off, end int64) seg {
	from, to := max(s.off, off), min(s.end(), end)
	if from >= to {
		return seg{}
	}
	p := seg{off: from, n: to - from}
	if s.data != nil {
		p.data = s.data[from-s.off : to-s.off]
	}
	return p
}

// change is one write, zeroing or cut of a file that is not durable yet, with what is needed to take it back.
type change struct {
	seq       uint64 // over all files and names of the store
	off, end  int64
	old       []seg // what is left to take back
	sizeAfter int64
	lost      bool // a flush that should have made it durable failed: no later flush does
}

// held is the memory that a change binds.
func (c *change) held() (n int64) {
	for _, s := range c.old {
		n += int64(len(s.data))
	}
	return n
}

// cut takes [off, end) out of what the change would take back: something durable lies there now.
func (c *change) cut(off, end int64) {
	if end <= c.off || off >= c.end {
		return
	}
	var kept []seg
	for _, s := range c.old {
		if s.end() <= off || s.off >= end {
			kept = append(kept, s)
			continue
		}
		if p := s.part(s.off, off); p.n > 0 {
			kept = append(kept, p)
		}
		if p := s.part(end, s.end()); p.n > 0 {
			kept = append(kept, p)
		}
	}
	c.old = kept
}

// settle makes the changes durable that a flush covers: all but the lost ones, whose ranges are durable only where
// something durable came after them. It returns what stays.
func settle(log []*change) (left []*change) {
	for _, c := range log {
		if c.lost {
			left = append(left, c)
			continue
		}
		for _, l := range left {
			l.cut(c.off, c.end)
		}
	}
	return left
}

// split makes segments of what a range held, so that what was zero binds no memory and becomes a hole again.
func split(off int64, p []byte) (out []seg) {
	const unit = 4096
	begin, hole := 0, false
	emit := func(end int) {
		if end == begin {
			return
		}
		s := seg{off: off + int64(begin), n: int64(end - begin)}
		if !hole {
			s.data = p[begin:end:end]
		}
		out, begin = append(out, s), end
	}
	for at := 0; at < len(p); {
		n := min(unit-int((off+int64(at))%unit), len(p)-at)
		if z := zero(p[at : at+n]); z != hole {
			emit(at)
			hole = z
		}
		at += n
	}
	emit(len(p))
	return out
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

package verify

import "hacluster/blockdev"

// Looked tells what was seen of a piece: here, with the blocks that could not be read as bad, and at each target. What it
// returns is to be copied now, before any further look: the looks that tell what came of it follow.
func (r *Run) Looked(p Piece, mine Mine, theirs map[string]Seen) (repairs []Repair) {
	r.inFlight--
	for _, t := range r.targets {
		if s, ok := theirs[t]; !ok || s.Unknown {
			r.todo = append(r.todo, p)
			return nil
		}
	}
	for _, b := range mine.Bad {
		r.noteBad(p.chunk, r.cfg.Self, b)
	}
	if p.Range.Len > block && r.worthHalving(p, theirs) {
		r.halve(p)
		return nil
	}
	if p.Ordered {
		repairs = r.judge(p, mine, theirs)
	} else {
		repairs = r.badThere(p, mine, theirs)
		r.suspect(p, mine, theirs)
	}
	if p.chunk.pieces--; p.chunk.pieces == 0 {
		r.result.Compared += p.chunk.size
	}
	return repairs
}

// worthHalving: a target could not read all of it, and not too many blocks of the chunk were found bad one by one.
func (r *Run) worthHalving(p Piece, theirs map[string]Seen) bool {
	for _, t := range r.targets {
		if theirs[t].Unreadable && p.chunk.count(t) < maxBad {
			return true
		}
	}
	return false
}

// halve has the two halves looked at, as the whole was: one of them may be read.
func (r *Run) halve(p Piece) {
	half := (p.Range.Len/2 + block - 1) / block * block
	back, front := p, p
	front.Range.Len = half
	back.Range = blockdev.Range{Off: p.Range.Off + half, Len: p.Range.Len - half}
	if p.after != nil {
		n := half / block
		front.after, back.after = mask{}, mask{}
		for t, m := range p.after {
			front.after[t], back.after[t] = m&(1<<n-1), m>>n
		}
	}
	p.chunk.pieces--
	r.again(back)
	r.again(front)
}

// again has a piece looked at before anything new.
func (r *Run) again(p Piece) {
	p.chunk.pieces++
	r.todo = append(r.todo, p)
}

// badThere notes what targets cannot read. With consent it is written anew, which may mend it.
func (r *Run) badThere(p Piece, mine Mine, theirs map[string]Seen) (repairs []Repair) {
	for _, t := range r.targets {
		if !theirs[t].Unreadable {
			continue
		}
		r.noteBad(p.chunk, t, p.Range)
		if !r.cfg.Repair || mine.bad(p.Range) {
			continue
		}
		for off := p.Range.Off; off < p.Range.End(); off += orderedBlocks * block {
			at := blockdev.Range{Off: off, Len: min(orderedBlocks*block, p.Range.End()-off)}
			repairs = append(repairs, Repair{t, at})
			r.again(Piece{Range: at, Ordered: true, chunk: p.chunk, after: mask{t: 1<<orderedBlocks - 1}})
		}
	}
	return repairs
}

// suspect has what differs looked at once more, in order.
func (r *Run) suspect(p Piece, mine Mine, theirs map[string]Seen) {
	var run blockdev.Range
	for i, b := range blocks(p.Range) {
		if !r.differsSomewhere(i, b, mine, theirs) {
			continue
		}
		if run.Len > 0 && run.End() == b.Off && run.Len < orderedBlocks*block {
			run.Len += b.Len
			continue
		}
		r.look(p, run)
		run = b
	}
	r.look(p, run)
}

func (r *Run) look(p Piece, at blockdev.Range) {
	if at.Len > 0 {
		r.result.Again += at.Len
		r.again(Piece{Range: at, Ordered: true, chunk: p.chunk})
	}
}

func (r *Run) differsSomewhere(i int, b blockdev.Range, mine Mine, theirs map[string]Seen) bool {
	for _, t := range r.targets {
		if s := theirs[t]; !s.Unreadable && r.differs(i, b, mine, s) {
			return true
		}
	}
	return false
}

// differs compares one block; what cannot be read here is not compared.
func (r *Run) differs(i int, b blockdev.Range, mine Mine, s Seen) bool {
	return !mine.bad(b) && string(r.digest(mine.Digests, i)) != string(r.digest(s.Digests, i))
}

func (r *Run) digest(all []byte, i int) []byte {
	return all[i*r.cfg.DigestSize : (i+1)*r.cfg.DigestSize]
}

// judge counts what differs in order, and what a repair that came before has made of it.
func (r *Run) judge(p Piece, mine Mine, theirs map[string]Seen) (repairs []Repair) {
	after, may := mask{}, r.cfg.Repair && p.after == nil // once: what does not take stays as it is found
	repair := func(t string, i int, b blockdev.Range) {
		if may && !mine.bad(b) {
			repairs = join(repairs, t, b)
			after[t] |= 1 << i
		}
	}
	for _, t := range r.targets {
		s := theirs[t]
		for i, b := range blocks(p.Range) {
			asked := p.after[t]&(1<<i) != 0
			switch differs := s.Unreadable || r.differs(i, b, mine, s); {
			case p.after != nil && !asked: // another look judges it
			case s.Unreadable:
				r.noteBad(p.chunk, t, b)
				repair(t, i, b)
			case asked && !differs:
				r.result.repaired(t, b)
			case asked || !differs: // what did not take was counted when it was found
			case s.Skip:
				r.skip(p.chunk, t, b)
			default:
				r.result.note(Range{Node: t, Range: b, Kind: Different, Mine: clone(r.digest(mine.Digests, i)), Theirs: clone(r.digest(s.Digests, i))})
				repair(t, i, b)
			}
		}
	}
	if len(repairs) > 0 {
		r.again(Piece{Range: p.Range, Ordered: true, chunk: p.chunk, after: after})
	}
	return repairs
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

// join adds a block to what is repaired of a node.
func join(all []Repair, node string, b blockdev.Range) []Repair {
	if n := len(all); n > 0 && all[n-1].Node == node && all[n-1].Range.End() == b.Off {
		all[n-1].Range.Len += b.Len
		return all
	}
	return append(all, Repair{node, b})
}

// noteBad counts what node cannot read, each block once however often it is looked at.
func (r *Run) noteBad(c *chunk, node string, at blockdev.Range) {
	for _, b := range blocks(at) {
		if c.first(place{node, b.Off}) {
			r.result.note(Range{Node: node, Range: b, Kind: Unreadable})
		}
	}
}

func (r *Run) skip(c *chunk, node string, b blockdev.Range) {
	if c.first(place{node, b.Off}) {
		r.result.node(node).Skipped++
	}
}

// blocks are those of a range; the volume's last one may be short.
func blocks(r blockdev.Range) (all []blockdev.Range) {
	for off := r.Off; off < r.End(); off += block {
		all = append(all, blockdev.Range{Off: off, Len: min(block, r.End()-off)})
	}
	return all
}

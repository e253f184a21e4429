package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Violation is a block whose answers no order explains.
type Violation struct {
	Block int64  `json:"block"`
	Why   string `json:"why"`
	Ops   []Op   `json:"ops"` // around the place, by time of sending
}

func (v Violation) String() string { return fmt.Sprintf("block %d: %s", v.Block, v.Why) }

// Registers checks each block for linearizability (Herlihy and Wing, 1990). undecided are blocks for which the search
// took too long: that proves nothing, either way. A block holds zeroes before its first write.
func Registers(ops []Op, patience time.Duration) (bad []Violation, undecided []int64) {
	blocks := map[int64][]Op{}
	for _, o := range ops {
		blocks[o.Block] = append(blocks[o.Block], o)
	}
	deadline := time.Now().Add(patience)
	for _, b := range slices.Sorted(maps.Keys(blocks)) {
		all := blocks[b]
		slices.SortFunc(all, func(x, y Op) int { return cmp.Compare(x.Sent, y.Sent) })
		if v, ok := plain(b, all); !ok {
			bad = append(bad, v)
			continue
		}
		switch search(all, max(time.Until(deadline), time.Second)) {
		case porcupine.Illegal:
			bad = append(bad, Violation{Block: b, Why: "no order of its operations explains every answer", Ops: all})
		case porcupine.Unknown:
			undecided = append(undecided, b)
		}
	}
	return bad, undecided
}

// plain finds what can be said in plain words: an answer that was never written, that comes before its write, or that
// is older than a write which was acknowledged before the read began.
func plain(block int64, ops []Op) (v Violation, ok bool) {
	g := registerOf(ops)
	for i, r := range ops {
		if r.Kind != Read || r.Unknown {
			continue
		}
		if why := g.wrong(r); why != "" {
			return Violation{Block: block, Why: r.String() + ": " + why, Ops: around(ops, i)}, false
		}
	}
	return v, true
}

// past is what the operations on one block tell of its writes.
type past struct {
	writes    map[uint64]Op
	effective map[uint64]time.Duration
	done      completed
}

func registerOf(ops []Op) past {
	g := past{writes: map[uint64]Op{}, effective: ends(ops)}
	for _, o := range ops {
		if o.Kind == Write {
			g.writes[o.Seq] = o
		}
	}
	g.done = newest(g.writes, g.effective)
	return g
}

// wrong says why the block cannot have held what a read tells; empty: it can.
func (g past) wrong(r Op) string {
	w, known := g.writes[r.Seq]
	switch {
	case r.Seq != 0 && !known:
		return "nobody wrote that"
	case known && w.Sent >= r.Answered:
		return fmt.Sprintf("it was written later: %v", w)
	}
	end := g.effective[r.Seq] // of zeroes: before all
	if later, ok := g.done.before(r.Sent); ok && later.Sent > end {
		return fmt.Sprintf("stale: acknowledged or seen in between was %v", later)
	}
	return ""
}

// Lacks holds what was read from a disk behind the servers' back against what clients saw: each block must hold, by
// itself, what was acknowledged before, or something newer. It returns what is wrong. Two disks may show different writes
// of unknown outcome, so they are not judged as answers of one register.
func Lacks(ops, read []Op) (bad []string) {
	blocks := map[int64][]Op{}
	for _, o := range ops {
		blocks[o.Block] = append(blocks[o.Block], o)
	}
	registers := map[int64]past{}
	for _, r := range read {
		g, ok := registers[r.Block]
		if !ok {
			g = registerOf(blocks[r.Block])
			registers[r.Block] = g
		}
		if why := g.wrong(r); why != "" {
			bad = append(bad, r.String()+": "+why)
		}
	}
	return bad
}

// completed are writes by the time at which they had taken effect, each with the newest one up to there.
type completed struct {
	at     []time.Duration
	newest []Op
}

func newest(writes map[uint64]Op, effective map[uint64]time.Duration) (c completed) {
	order := slices.SortedFunc(maps.Values(writes), func(a, b Op) int { return cmp.Compare(effective[a.Seq], effective[b.Seq]) })
	for i, w := range order {
		if i > 0 && c.newest[i-1].Sent > w.Sent {
			w = c.newest[i-1]
		}
		c.at, c.newest = append(c.at, effective[order[i].Seq]), append(c.newest, w)
	}
	return c
}

// before is the write that was sent last of those that had taken effect before t.
func (c completed) before(t time.Duration) (w Op, ok bool) {
	i, _ := slices.BinarySearch(c.at, t)
	if i == 0 {
		return w, false
	}
	return c.newest[i-1], true
}

// ends says for each write by when it has taken effect: when it was acknowledged, or first seen.
func ends(ops []Op) map[uint64]time.Duration {
	end := map[uint64]time.Duration{}
	for _, o := range ops {
		if o.Kind == Write {
			end[o.Seq] = math.MaxInt64
			if !o.Unknown {
				end[o.Seq] = o.Answered
			}
		}
	}
	for _, o := range ops {
		if e, ok := end[o.Seq]; ok && o.Kind == Read && !o.Unknown {
			end[o.Seq] = min(e, o.Answered)
		}
	}
	return end
}

// search looks for an order. A write of unknown outcome that nobody saw may be left out: never is an order, too.
func search(ops []Op, patience time.Duration) porcupine.CheckResult {
	effective := ends(ops)
	var h []porcupine.Operation
	clients := map[string]int{}
	for _, o := range ops {
		end := o.Answered
		switch {
		case o.Kind == Read && o.Unknown, o.Kind == Write && effective[o.Seq] == math.MaxInt64:
			continue
		case o.Kind == Write && o.Unknown:
			end = effective[o.Seq]
		}
		id, ok := clients[o.Who]
		if !ok {
			id = len(clients)
			clients[o.Who] = id
		}
		h = append(h, porcupine.Operation{ClientId: id, Input: o, Call: int64(o.Sent), Return: int64(end)})
	}
	deadline, worst := time.Now().Add(patience), porcupine.Ok
	for _, part := range quiet(h) {
		switch porcupine.CheckOperationsTimeout(register(part.holds), part.ops, max(time.Until(deadline), time.Second)) {
		case porcupine.Illegal:
			return porcupine.Illegal
		case porcupine.Unknown:
			worst = porcupine.Unknown
		}
	}
	return worst
}

// part is a stretch of a history that can be judged by itself: the block holds a known value when it begins.
type part struct {
	holds uint64
	ops   []porcupine.Operation
}

// quiet cuts a history, ordered by calls, where nothing is under way and the last write came after all others had ended:
// what the block holds there is the same in every order. The search takes time that grows steeply with the length.
func quiet(h []porcupine.Operation) (parts []part) {
	var begins, holds uint64 // what the block holds at the beginning of this part, and, if known, after all so far
	known, first := true, 0
	var end, writesEnd int64 // of all operations so far, of all writes
	for i, o := range h {
		if i > first && known && o.Call > end {
			parts = append(parts, part{begins, h[first:i]})
			first, begins = i, holds
		}
		end = max(end, o.Return)
		if in := o.Input.(Op); in.Kind == Write {
			known = o.Call > writesEnd
			holds = in.Seq
			writesEnd = max(writesEnd, o.Return)
		}
	}
	return append(parts, part{begins, h[first:]})
}

// register is the model: it holds the number of the last write.
func register(holds uint64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return holds },
		Step: func(state, input, _ any) (bool, any) {
			o := input.(Op)
			if o.Kind == Write {
				return true, o.Seq
			}
			return state.(uint64) == o.Seq, state
		},
	}
}

func around(ops []Op, i int) []Op { return slices.Clone(ops[max(i-8, 0):min(i+9, len(ops))]) }

// Lost counts acknowledged writes that the last read of their block does not know any more: the loss that a user sees.
func Lost(ops []Op) int { return len(Missing(ops)) }

// LeftBehind are acknowledged writes of one server that another does not know, by what that answered before they were written over:
// some of those that a failover in async lost.
func LeftBehind(ops []Op, server string) []Op {
	old := map[uint64]bool{0: true}
	var seen []Op
	for _, o := range ops {
		if o.Kind == Write && (o.Unknown || o.Server == server) {
			old[o.Seq] = true
			seen = append(seen, o)
		}
	}
	for _, o := range ops {
		if o.Kind == Read && !o.Unknown && o.Server != server && old[o.Seq] {
			seen = append(seen, o)
		}
	}
	return Missing(seen)
}

// Missing are those writes.
func Missing(ops []Op) (missing []Op) {
	last := map[int64]Op{}
	for _, o := range ops {
		if l, ok := last[o.Block]; o.Kind == Read && !o.Unknown && (!ok || o.Sent > l.Sent) {
			last[o.Block] = o
		}
	}
	effective := ends(ops)
	for _, o := range ops {
		r, ok := last[o.Block]
		if ok && o.Kind == Write && !o.Unknown && o.Answered < r.Sent && o.Sent > effective[r.Seq] {
			missing = append(missing, o)
		}
	}
	return missing
}

// Overtaken looks whether what a disk holds is a prefix of the order of writes, as far as clients can tell of that: no write is
// there that was sent when one had been answered that is not. ops have what was read in the end, too.
func Overtaken(ops, read []Op) (bad []string) {
	missing := Missing(ops)
	if len(missing) == 0 {
		return nil
	}
	first := slices.MinFunc(missing, func(a, b Op) int { return cmp.Compare(a.Answered, b.Answered) })
	writes := map[uint64]Op{}
	for _, o := range ops {
		if o.Kind == Write {
			writes[o.Seq] = o
		}
	}
	for _, r := range read {
		if w, ok := writes[r.Seq]; ok && w.Sent > first.Answered {
			bad = append(bad, fmt.Sprintf("%v is there, and %v, which was answered before that was sent, is not", w, first))
		}
	}
	return bad
}

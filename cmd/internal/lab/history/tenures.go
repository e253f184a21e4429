package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Tenure is one primary's time in the role.
type Tenure struct {
	Epoch uint64 `json:"epoch"`
	Node  string `json:"node"`
}

// Primaries checks that one primary at most answered at any instant: each answered operation must have an instant
// between its sending and its answer at which its server was the primary, with the tenures one after the other as given.
// It returns what cannot be so.
func Primaries(ops []Op, tenures []Tenure) []string {
	var acks []Op
	for _, o := range ops {
		if !o.Unknown {
			acks = append(acks, o)
		}
	}
	slices.SortFunc(acks, func(a, b Op) int { return cmp.Compare(a.Answered, b.Answered) })
	p := placing{tenures: tenures, now: -1}
	var bad []string
	for _, a := range acks {
		if why := p.place(a); why != "" {
			bad = append(bad, why)
			if len(bad) == maxTold {
				return bad
			}
		}
	}
	return bad
}

const maxTold = 10

// placing puts answers, in the order of their times, into tenures, as early as can be. Each tenure but the first began
// at the latest when its first answer came: from then on, nothing that is sent can be answered in an earlier one.
type placing struct {
	tenures []Tenure
	now     int             // the tenure under way; -1: none answered yet
	began   []time.Duration // of each tenure up to now: at the latest then
}

func (p *placing) place(a Op) string {
	if p.now >= 0 && p.tenures[p.now].Node == a.Server {
		return ""
	}
	for i := p.now - 1; i >= 0; i-- { // an answer that was on its way when the role moved
		if p.tenures[i].Node == a.Server && a.Sent < p.began[i+1] {
			return ""
		}
	}
	for i := p.now + 1; i < len(p.tenures); i++ {
		if p.tenures[i].Node != a.Server {
			continue
		}
		for len(p.began) <= i {
			p.began = append(p.began, a.Answered)
		}
		p.now = i
		return ""
	}
	when := "before any tenure was known to begin"
	if p.now >= 0 {
		when = fmt.Sprintf("while %s was primary in epoch %d, at %.6f at the latest", p.tenures[p.now].Node, p.tenures[p.now].Epoch, p.began[p.now].Seconds())
	}
	return fmt.Sprintf("%v was answered %s", a, when)
}

// Switches counts how often the role moved.
func Switches(tenures []Tenure) (n int) { return max(len(tenures)-1, 0) }

// LongestGap is the longest time within [from, to] in which nobody got an answer, and when it began.
func LongestGap(ops []Op, from, to time.Duration) (gap, began time.Duration) {
	var at []time.Duration
	for _, o := range ops {
		if !o.Unknown && o.Kind == Write && o.Answered >= from && o.Answered <= to {
			at = append(at, o.Answered)
		}
	}
	slices.Sort(at)
	last := from
	for _, t := range append(at, to) {
		if t-last > gap {
			gap, began = t-last, last
		}
		last = t
	}
	return gap, began
}

// Outage is the time from the last write acknowledged before t to the first one that was sent after t.
func Outage(ops []Op, t time.Duration) (d time.Duration, ok bool) {
	var before, after time.Duration
	for _, o := range ops {
		if o.Unknown || o.Kind != Write {
			continue
		}
		if o.Answered <= t {
			before = max(before, o.Answered)
		} else if o.Sent > t && (after == 0 || o.Answered < after) {
			after = o.Answered
		}
	}
	return after - before, before > 0 && after > 0
}

package replication

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"hacluster/blockdev"
	"hacluster/replication/primary"
)

// unreadable is what a resync found of the primary's own disk that cannot be read, as of its last tries. What it knows
// is bounded: of more than maxUnreadable ranges it only knows that there are more.
type unreadable struct {
	ranges []blockdev.Range // in order
	more   bool
}

const maxUnreadable = 64

// replace takes what is bad in chunk now for what was. news: something is bad that was not.
func (u *unreadable) replace(chunk blockdev.Range, bad []blockdev.Range) (news bool) {
	var was []blockdev.Range
	u.ranges = slices.DeleteFunc(u.ranges, func(r blockdev.Range) bool {
		in := r.Overlaps(chunk)
		if in {
			was = append(was, r)
		}
		return in
	})
	for _, r := range bad {
		if len(u.ranges) == maxUnreadable {
			u.more = true
			break
		}
		u.ranges = append(u.ranges, r)
	}
	slices.SortFunc(u.ranges, func(a, b blockdev.Range) int { return cmp.Compare(a.Off, b.Off) })
	if len(u.ranges) == 0 {
		u.more = false
	}
	return len(bad) > 0 && !slices.Equal(was, bad)
}

// text tells an operator; empty when all can be read.
func (u *unreadable) text() string {
	if len(u.ranges) == 0 {
		return ""
	}
	var b strings.Builder
	bytes := int64(0)
	for i, r := range u.ranges {
		bytes += r.Len
		if i < 8 {
			fmt.Fprintf(&b, " %v", r)
		}
	}
	more := ""
	if u.more || len(u.ranges) > 8 {
		more = " and more"
	}
	return fmt.Sprintf("%d bytes of the primary's own disk cannot be read, at%s%s: everything else is copied, these are tried again every minute; the replica is not admitted before", bytes, b.String(), more)
}

// noteUnreadable keeps what cannot be read for the status, and tells when there is more of it.
func (p *peerLink) noteUnreadable(chunk blockdev.Range, bad []blockdev.Range) {
	p.mu.Lock()
	news := p.bad.replace(chunk, bad)
	text := p.bad.text()
	p.mu.Unlock()
	if news {
		p.t.r.log.Error("a resync cannot read a part of the primary's disk", "peer", p.node, "epoch", p.t.epoch, "what", text)
		p.t.r.event("unreadable blocks", fmt.Sprintf("resync of %s: %s", p.node, text))
	}
}

// blocked is what keeps the resync from ending, by what was found so far. Under p.mu.
func (p *peerLink) blocked(g primary.Progress) string {
	if p.queued && g.Resyncing {
		return fmt.Sprintf("its resync waits for its turn: %s runs %d at a time (resyncs in the limits block)", p.t.r.cfg.Node, p.t.r.cfg.Crowd.resyncs.atATime())
	}
	if !g.Unreadable {
		return ""
	}
	return p.bad.text()
}

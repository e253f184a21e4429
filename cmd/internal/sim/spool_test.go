package sim

import (
	"errors"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/primary"
)

// A third of the seeds in async has a spool (primary/spool.go): what a member lacks beyond two operations leaves memory, and comes back
// late, in another order, or not at all. Data that is in the spool only is sent to nobody. How long it takes, and what fails,
// follows from a count, so that the other seeds play what they played without.

// spools reports whether this seed has one.
func (w *world) spools() bool { return w.seed%12 == 9 }

func (w *world) spoolSizes() primary.SpoolSizes {
	if !w.spools() {
		return primary.SpoolSizes{}
	}
	return primary.SpoolSizes{Window: 2 * (blockdev.BlockSize + 1024), From: 0, Most: 3 * blockdev.BlockSize}
}

var errSpool = errors.New("the spool failed")

// spool carries out what the Core wants of it.
func (s *session) spool(a *primary.Action, o *op) {
	if a.Kind == primary.Unload {
		o.away = true
		return
	}
	s.w.spoolCalls++
	n := s.w.spoolCalls
	o.spooling++
	s.r.p.after(time.Duration(n%7)*time.Duration(n%5)*time.Millisecond, func() {
		o.spooling--
		if o.spooling == 0 && o.released {
			s.reuse(o)
			return
		}
		if s.ended || o.released {
			return
		}
		now := s.r.p.now()
		switch {
		case a.Kind == primary.Spool && n%11 == 0:
			s.core.Spooled(now, &o.Op, errSpool)
		case a.Kind == primary.Spool:
			s.w.counts.Spooled++
			s.core.Spooled(now, &o.Op, nil)
		case n%97 == 0:
			s.w.counts.Unspooled++
			s.core.Loaded(now, &o.Op, errSpool)
		default:
			s.w.counts.Loaded++
			o.away = false
			s.core.Loaded(now, &o.Op, nil)
		}
		s.run()
	})
}

package replication

import (
	"hacluster/replication/primary"
)

// MaxBound is the largest bound in bytes that memory is enough for: all volumes of a node share what there is for what clients were
// told of and a member has not written (Room).
const MaxBound = maxEarlyBytes / 2

// MaxSpooledBound is the largest with a spool.
const MaxSpooledBound = 64 << 30

// within is the bound as it can be kept.
func (s *SpoolConfig) within(b primary.Bound) primary.Bound {
	most := int64(MaxBound)
	if s.Dir != "" {
		most = MaxSpooledBound
	}
	b.Bytes = min(b.Bytes, most)
	return b
}

// SetSpool changes the folder of Config.Spool for the next tenure.
func (r *Replica) SetSpool(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cfg.Spool.Dir = dir
}

// SetBound changes Config.Bound, by one caller at a time. A smaller one counts for what is acknowledged from now on.
func (r *Replica) SetBound(b primary.Bound) {
	r.mu.Lock()
	b = r.cfg.Spool.within(b)
	r.bound = b
	t := r.tenure
	r.mu.Unlock()
	if t != nil {
		t.with(func(now primary.Instant) {
			if sizes := t.spool.sizes(b); sizes.Most > 0 {
				t.core.UseSpool(sizes)
			}
			t.core.SetBound(now, b)
		})
	}
}

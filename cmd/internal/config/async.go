package config

import (
	"fmt"
	"time"
)

// The bounds of the async block, in mode async. In another mode it is only read: a file with any values was right before
// there was this mode, and a cluster must not refuse what it applied.
const (
	// minMaxLagBytes is more than what clients usually write in one request. A write that is larger than max_lag_bytes is
	// acknowledged when the standby has written it, as in sync.
	minMaxLagBytes = 1 << 20
	// maxMaxLagBytes is replication.MaxBound: what a standby lacks is kept in memory until it has it, and all volumes of a node
	// share what there is for that.
	maxMaxLagBytes = 128 << 20
	// minMaxLag is what a long line and a busy disk take of themselves: with less, every write would wait for the standby.
	minMaxLag = 100 * time.Millisecond
	// maxMaxLag and maxPatience: a standby that says nothing, and is asked for nothing, counts as a member for so long together.
	maxMaxLag   = 5 * time.Minute
	maxPatience = 10 * time.Minute
)

// String is the bound as plans and tables show it.
func (a Async) String() string {
	return fmt.Sprintf("max_lag_bytes %s, max_lag %v, patience %v", bytesText(a.MaxLagBytes), a.MaxLag, a.Patience)
}

// asyncAt is where the keys of the block stand; where they do not, it is the block, or the volume without one.
type asyncAt struct{ bytes, lag, patience pos }

// async reads the enforced bound on what may be lost.
func (r *reader) async(volume *body) (Async, asyncAt) {
	b := volume.one(false, "async")
	if b == nil {
		return Async{MaxLagBytes: 64 << 20, MaxLag: 5 * time.Second, Patience: 10 * time.Second}, asyncAt{volume.at, volume.at, volume.at}
	}
	defer b.finish()
	return Async{
		MaxLagBytes: b.size("max_lag_bytes", defaultMaxLagBytes),
		MaxLag:      b.duration("max_lag", defaultMaxLag),
		Patience:    b.duration("patience", defaultPatience),
	}, asyncAt{b.posOfKey("max_lag_bytes"), b.posOfKey("max_lag"), b.posOfKey("patience")}
}

// checkAsync refuses a bound that cannot be kept, or that would make the mode pointless.
func (c *Config) checkAsync(r *report) {
	for _, v := range c.Volumes {
		if v.HasAsync() {
			c.checkBound(r, v)
		}
	}
}

func (c *Config) checkBound(r *report, v Volume) {
	a, at := v.Async, v.asyncAt
	switch {
	case a.MaxLagBytes < minMaxLagBytes:
		r.add(at.bytes, "too small", fmt.Sprintf(`%s or more is wanted: with less, ordinary requests would wait for the standby; mode = "sync" loses nothing`, bytesText(minMaxLagBytes)))
	case a.MaxLagBytes > maxMaxLagBytes:
		r.add(at.bytes, "too large", fmt.Sprintf("%s or less is wanted: what the standby lacks is kept in the primary's memory", bytesText(maxMaxLagBytes)))
	}
	if a.MaxLag > maxMaxLag {
		r.add(at.lag, "too long", fmt.Sprintf("%v or less is wanted: for so long, and the patience, a standby that says nothing passes for one that could follow", maxMaxLag))
	}
	if a.Patience > maxPatience {
		r.add(at.patience, "too long", fmt.Sprintf("%v or less is wanted: for so long writers may be held for a standby that is lost", maxPatience))
	}
	if a.MaxLag < minMaxLag {
		r.add(at.lag, "too short", fmt.Sprintf(`%v or more is wanted: with less, every write would wait for the standby; mode = "sync" loses nothing`, minMaxLag))
	}
	if silent := c.Timers.DropAfter; a.Patience < silent {
		r.add(at.patience, "patience too short", fmt.Sprintf("%v or more is wanted, a quarter of the RTO target: in mode sync a silent standby is given as long before it is dropped", silent))
	}
}

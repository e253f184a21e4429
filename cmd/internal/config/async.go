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
	// maxMaxLagBytes is replication.MaxSpooledBound.
	maxMaxLagBytes = 64 << 30
	// minMaxLag is what a long line and a busy disk take of themselves: with less, every write would wait for the standby.
	minMaxLag = 100 * time.Millisecond
	// maxMaxLag is more than a failover should lose. A standby that says nothing counts as a member for five minutes of it and the
	// patience at most.
	maxMaxLag   = time.Hour
	maxPatience = 10 * time.Minute
)

// String is the bound as plans and tables show it.
func (a Async) String() string {
	text := fmt.Sprintf("max_lag_bytes %s, max_lag %v, patience %v", bytesText(a.MaxLagBytes), a.MaxLag, a.Patience)
	if a.Spool != "" {
		text += ", spool " + a.Spool
	}
	return text
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
		Spool:       r.spool(b),
	}, asyncAt{b.posOfKey("max_lag_bytes"), b.posOfKey("max_lag"), b.posOfKey("patience")}
}

// spool reads the optional folder of what memory does not hold.
func (r *reader) spool(b *body) string {
	if b.attr("spool") == nil {
		return ""
	}
	v := b.str("spool", "/var/spool/hacluster")
	if v.set {
		if want := badPath(v.s); want != "" {
			r.addValue(v, "unusable path", want)
		}
	}
	return v.s
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
		r.add(at.bytes, "too large", fmt.Sprintf("%s or less is wanted: beyond that a standby is better dropped, and resynced by its map", bytesText(maxMaxLagBytes)))
	}
	if a.MaxLag > maxMaxLag {
		r.add(at.lag, "too long", fmt.Sprintf("%v or less is wanted: a failover may lose what was acknowledged in that time", maxMaxLag))
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

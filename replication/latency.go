package replication

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram counts how long something took, in fixed buckets that double. It may be used concurrently, takes no lock
// and no memory, and costs two atomic additions. The zero value is ready.
type Histogram struct {
	counts [latencyBuckets + 1]atomic.Uint64 // the last: longer than every bound
	nanos  atomic.Uint64
}

// The buckets: up to 16.4 µs, each twice the one before, up to 17.2 s.
const (
	firstBucketBits = 14
	latencyBuckets  = 21
)

// Observe counts one duration; a negative one counts as none at all.
func (h *Histogram) Observe(d time.Duration) {
	n := uint64(max(d, 0))
	i := 0
	if n > 1<<firstBucketBits {
		i = min(bits.Len64(n-1)-firstBucketBits, latencyBuckets)
	}
	h.counts[i].Add(1)
	h.nanos.Add(n)
}

// Latency is what a Histogram has counted, as Prometheus wants it: Cumulative[i] durations took BoundsSeconds()[i] or
// less.
type Latency struct {
	Cumulative []uint64
	Count      uint64
	SumSeconds float64
}

// Read is what was counted so far. Counts that change meanwhile may be in one figure and not yet in another; none goes
// back.
func (h *Histogram) Read() Latency {
	l := Latency{SumSeconds: float64(h.nanos.Load()) / 1e9, Cumulative: make([]uint64, latencyBuckets)}
	for i := range h.counts {
		l.Count += h.counts[i].Load()
		if i < latencyBuckets {
			l.Cumulative[i] = l.Count
		}
	}
	return l
}

// BoundsSeconds are the upper bounds of the buckets.
func BoundsSeconds() []float64 {
	bounds := make([]float64, latencyBuckets)
	for i := range bounds {
		bounds[i] = float64(uint64(1)<<(firstBucketBits+i)) / 1e9
	}
	return bounds
}

// stamp is a point in time on the monotonic clock. It is the cheap one, read without a system call; what leases rest on
// counts suspend and costs ten times as much.
type stamp int64

var stampEpoch = time.Now().Add(-time.Hour) // so that no stamp is zero, which means none

func takeStamp() stamp { return stamp(time.Since(stampEpoch)) }

func (s stamp) to(later stamp) time.Duration { return time.Duration(later - s) }

package resync

import (
	"testing"
	"time"
)

func TestBucketsOfATailAreAtMostAnEighthApart(t *testing.T) {
	for d := 10 * time.Microsecond; d < time.Minute; d += d / 50 {
		var tail Tail
		tail[TailBucket(d)]++
		if bound := tail.beyond(0); bound < float64(d) || bound > float64(d)*9/8+1 {
			t.Fatalf("%v counts as one of at most %v", d, time.Duration(bound))
		}
	}
	for _, d := range []time.Duration{-time.Second, 0, 1, 1 << tailFirstBits, 1000 * time.Hour} {
		if i := TailBucket(d); i < 0 || i >= TailBuckets {
			t.Errorf("%v has bucket %d", d, i)
		}
	}
}

func tailOfOps(n int, took time.Duration, slow int, slowTook time.Duration) *Tail {
	var t Tail
	t[TailBucket(took)] += uint32(n)
	t[TailBucket(slowTook)] += uint32(slow)
	return &t
}

func TestTheHundredthSlowestIsComparedAndOfFewOperationsOneFurtherBelow(t *testing.T) {
	const ms = time.Millisecond
	calm := tailOfOps(1000, ms, 0, 0)
	calm[TailBucket(0)] = 0
	for _, c := range []struct {
		ops, slow int
		least     float64
		most      float64
	}{
		{2000, 10, 1, 1},  // one in two hundred
		{2000, 60, 9, 12}, // three in hundred
		{50, 4, 1, 1},     // three or four may be of one moment
		{50, 8, 9, 12},
		{6, 1, 1, 1},
		{2, 4, 9, 12},
	} {
		beside := tailOfOps(c.ops, ms, c.slow, 10*ms)
		if got := slower(beside, calm, perhaps); got < c.least || got > c.most {
			t.Errorf("%d operations took 1 ms, %d took 10 ms: %.2f times as long, want %.0f to %.0f", c.ops, c.slow, got, c.least, c.most)
		}
	}
}

func TestCountsOfATailMayWrapAround(t *testing.T) {
	var old, now Tail
	old[7], now[7] = 1<<32-2, 3
	if d := now.since(&old); d[7] != 5 || d.count() != 5 {
		t.Errorf("counted %d, want 5", d[7])
	}
}

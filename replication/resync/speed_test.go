package resync

import (
	"testing"
	"time"
)

func TestSpeedAndEstimateOfASteadyResync(t *testing.T) {
	var s Speed
	const perSec, all = 10 << 20, 1 << 30
	for i := range 100 {
		now := time.Duration(i) * 100 * time.Millisecond
		left := all - int64(now.Seconds()*perSec)
		s.Look(now, left)
		eta, ok := s.ETA()
		if ok != (now >= speedWarm) {
			t.Fatalf("after %v: an estimate is known: %t", now, ok)
		}
		if want := float64(left) / perSec; ok && (eta.Seconds() < want-1 || eta.Seconds() > want+2) {
			t.Fatalf("after %v: %v left, want %.0f s", now, eta, want)
		}
	}
	if r := s.BytesPerSec(); r < perSec*99/100 || r > perSec*101/100 {
		t.Fatalf("%d bytes per second, want %d", r, perSec)
	}
}

func TestSpeedFollowsAChangeAndIsSmooth(t *testing.T) {
	var s Speed
	left := int64(1 << 40)
	step := func(perSec int64, seconds int) {
		for range seconds {
			left -= perSec
			s.Look(s.at+time.Second, left)
		}
	}
	s.Look(0, left)
	step(100<<20, 20)
	step(0, 1) // one bad second
	if r := s.BytesPerSec(); r < 80<<20 {
		t.Errorf("one second without progress brought it to %d", r)
	}
	step(10<<20, 40)
	if r := s.BytesPerSec(); r < 9<<20 || r > 12<<20 {
		t.Errorf("%d bytes per second, it has been %d for 40 s", r, 10<<20)
	}
}

func TestNoEstimateWhereNothingGetsLess(t *testing.T) {
	var s Speed
	for i := range 40 {
		s.Look(time.Duration(i)*time.Second, 1<<30+int64(i)*4096) // writes add more than is copied
		if eta, ok := s.ETA(); ok {
			t.Fatalf("after %d s: %v left", i, eta)
		}
	}
	if !s.Stalled(39*time.Second) || s.BytesPerSec() != 0 {
		t.Errorf("stalled %t, %d bytes per second", s.Stalled(39*time.Second), s.BytesPerSec())
	}
	s.Look(40*time.Second, 1<<20)
	if s.Stalled(41 * time.Second) {
		t.Error("it goes on, and counts as stalled")
	}
}

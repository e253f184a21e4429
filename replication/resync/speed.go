package resync

import (
	"math"
	"time"
)

// Speed follows what is left of one resync, from looks at it that come several times a second. It is pure; now is a time
// since any moment. The zero value is ready for a resync that begins.
type Speed struct {
	began, at time.Duration // the first look, the newest that counted
	moved     time.Duration // when less was left than ever before
	left      int64         // at the newest look
	least     int64
	perSec    float64
	looked    bool
}

const (
	speedTime  = 8 * time.Second        // what is older has little weight
	speedStep  = 200 * time.Millisecond // looks that are closer together are left out
	speedWarm  = 2 * time.Second        // no estimate before
	stallAfter = 30 * time.Second
)

// Look takes how many bytes are left. What writes add counts against the speed: the estimate is of when it ends.
func (s *Speed) Look(now time.Duration, left int64) {
	if !s.looked {
		*s = Speed{began: now, at: now, moved: now, left: left, least: left, looked: true}
		return
	}
	passed := now - s.at
	if passed < speedStep {
		return
	}
	rate := float64(s.left-left) / passed.Seconds()
	// The weight of the newest look: by its length, and at the beginning by its part of all that is known.
	weight := max(1-math.Exp(-passed.Seconds()/speedTime.Seconds()), passed.Seconds()/(now-s.began).Seconds())
	s.perSec += weight * (rate - s.perSec)
	s.at, s.left = now, left
	if left < s.least {
		s.least, s.moved = left, now
	}
}

// BytesPerSec is the speed; zero while it does not get ahead.
func (s *Speed) BytesPerSec() int64 { return max(int64(s.perSec), 0) }

// ETA is how long it will take; ok false: not known, because it has just begun or does not get ahead.
func (s *Speed) ETA() (left time.Duration, ok bool) {
	const most = 365 * 24 * time.Hour
	if s.at-s.began < speedWarm || s.perSec < 1 || s.Stalled(s.at) {
		return 0, false
	}
	seconds := math.Ceil(float64(s.left) / s.perSec)
	if seconds > most.Seconds() {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}

// Stalled reports whether nothing got less for a long time.
func (s *Speed) Stalled(now time.Duration) bool { return s.looked && now-s.moved >= stallAfter }

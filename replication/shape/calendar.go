package shape

// Minute is a moment of the week, in minutes since Monday 00:00 UTC.
type Minute int

// Day and week have so many.
const (
	Day  Minute = 24 * 60
	Week        = 7 * Day
)

// Window is a part of the week in which another rate holds.
type Window struct {
	Days     uint8  // on which it begins; bit 0 is Monday
	From, To Minute // of the day; a To that is not behind From is one of the next day
	Rate     int64  // bytes a second; 0: no limit
}

// RateAt is what holds at a moment of the week, in bytes a second; 0: no limit.
func (s *Settings) RateAt(at Minute) int64 {
	for _, w := range s.Calendar {
		if w.holds(at) {
			return w.Rate
		}
	}
	return s.Rate
}

func (w Window) holds(at Minute) bool {
	day, of := int(at/Day), at%Day
	if w.To > w.From {
		return w.on(day) && of >= w.From && of < w.To
	}
	return w.on(day) && of >= w.From || w.on((day+6)%7) && of < w.To
}

func (w Window) on(day int) bool { return w.Days&(1<<day) != 0 }

package schedule

import "time"

// Correction is how far the time of day steps back when it was wrong before. A smaller step, as a time service makes,
// brings minutes that were there already; after a larger one the new time counts at once, as in cron.
const Correction = 3 * time.Hour

// Due reports whether the schedule's moment is in the minute of now, and nobody has looked in that minute yet. last is
// what Look gave after the look before; the zero time: this is the first one, which finds nothing due, for whoever looked
// before a restart may have seen the same minute. A minute in which nobody looks is not made up for.
func (s Schedule) Due(last, now time.Time) bool {
	return begins(last, now) && s.matches(minuteOf(now))
}

// Look is what the next look is to be told of one at now.
func Look(last, now time.Time) time.Time {
	if last.IsZero() || begins(last, now) {
		return minuteOf(now)
	}
	return last
}

// begins reports whether now is in a minute that has not been looked at.
func begins(last, now time.Time) bool {
	if last.IsZero() {
		return false
	}
	ahead := minuteOf(now).Sub(last)
	return ahead > 0 || ahead < -Correction
}

func minuteOf(t time.Time) time.Time { return t.UTC().Truncate(time.Minute) }

// Package schedule reads cron expressions and tells when they are due. It has no clock: it is given the time of day, which
// may stand still and step. Everything is in UTC, where each minute comes once a day.
package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// Schedule is a cron expression that Parse has read: minute, hour, day of the month, month, day of the week, with one space
// between two. Empty: never.
type Schedule string

// Want says what Parse takes.
const Want = `minute, hour, day of the month, month and day of the week are wanted, such as "30 2 * * 0": Sundays at 02:30 UTC`

// maxText bounds an expression, in bytes.
const maxText = 256

// field is one of the five: its bounds, and the names that its numbers have, from the lower bound on.
type field struct {
	name     string
	min, max int
	names    []string
}

var fields = []field{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of the month", 1, 31, nil},
	{"month", 1, 12, []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}},
	{"day of the week", 0, 7, []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}}, // 7 is Sunday as well
}

// leap is the first day of a year in which every day comes, for whether an expression ever does: every node must say the same.
var leap = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// Parse reads an expression. The library alone takes more than people mean, and judges a list only as far as the moment
// of asking needs, so that one node would refuse what another takes; so each field is held against its bounds here.
func Parse(text string) (Schedule, error) {
	if len(text) > maxText {
		return "", fmt.Errorf("it is longer than %d bytes", maxText)
	}
	parts := strings.Fields(strings.ToUpper(text))
	if len(parts) != len(fields) {
		return "", fmt.Errorf("it has %d fields, not %d", len(parts), len(fields))
	}
	for i, f := range fields {
		for item := range strings.SplitSeq(parts[i], ",") {
			if !f.takes(item) {
				return "", fmt.Errorf("%q is no %s", item, f.name)
			}
		}
	}
	s := Schedule(strings.Join(parts, " "))
	if _, ok := s.Next(leap); !ok {
		return "", fmt.Errorf("no such day comes")
	}
	return s, nil
}

// takes reports whether an item of a list is *, a number, a range, or one of * and a range with a step.
func (f field) takes(item string) bool {
	span, step, stepped := strings.Cut(item, "/")
	if stepped {
		if n, ok := number(step); !ok || n < 1 || n > f.max {
			return false
		}
	}
	if span == "*" {
		return true
	}
	first, last, isRange := strings.Cut(span, "-")
	a, ok := f.value(first)
	if !isRange {
		return ok && !stepped
	}
	b, ok2 := f.value(last)
	return ok && ok2 && a <= b
}

// value is a number or a name within the bounds.
func (f field) value(s string) (int, bool) {
	if i := slices.Index(f.names, s); i >= 0 {
		return f.min + i, true
	}
	n, ok := number(s)
	return n, ok && n >= f.min && n <= f.max
}

// number is a plain one of at most two digits, without sign.
func number(s string) (int, bool) {
	if len(s) == 0 || len(s) > 2 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// matches reports whether the minute is one of the schedule's. If both days are given, either is enough, as in cron.
func (s Schedule) matches(minute time.Time) bool {
	if s == "" {
		return false
	}
	due, err := gronx.New().IsDue(string(s), minute)
	return err == nil && due
}

// Next is the first minute after now; ok false: none is known.
func (s Schedule) Next(now time.Time) (next time.Time, ok bool) {
	if s == "" {
		return next, false
	}
	next, err := gronx.NextTickAfter(string(s), minuteOf(now), false)
	return next, err == nil && s.matches(next) && next.After(now)
}

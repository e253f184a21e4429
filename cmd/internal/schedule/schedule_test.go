package schedule

import (
	"math/rand"
	"strings"
	"testing"
	"time"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	at, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Sunday is the 29th.
func TestDueOncePerMinuteHoweverTheTimeOfDayMoves(t *testing.T) {
	const sunday = Schedule("30 2 * * 0")
	for _, c := range []struct {
		name  string
		looks []string
		want  []bool
	}{
		{"once in its minute", []string{"2026-11-29 02:29:58", "2026-11-29 02:30:03", "2026-11-29 02:30:08", "2026-11-29 02:31:00"}, []bool{false, true, false, false}},
		{"at the last second of it", []string{"2026-11-29 02:29:58", "2026-11-29 02:30:59"}, []bool{false, true}},
		{"another day", []string{"2026-11-28 02:29:58", "2026-11-28 02:30:03"}, []bool{false, false}},
		{"the next week again", []string{"2026-11-29 02:29:58", "2026-11-29 02:30:03", "2026-12-06 02:30:00"}, []bool{false, true, true}},
		{"the first look finds nothing", []string{"2026-11-29 02:30:03", "2026-11-29 02:30:08"}, []bool{false, false}},
		{"a missed minute is not made up for", []string{"2026-11-29 02:29:58", "2026-11-29 02:31:00"}, []bool{false, false}},
		{"a step over it neither", []string{"2026-11-29 02:29:58", "2026-11-29 04:00:00", "2026-11-29 04:00:05"}, []bool{false, false, false}},
		{"a step back repeats nothing", []string{"2026-11-29 02:29:58", "2026-11-29 02:30:03", "2026-11-29 01:45:00", "2026-11-29 02:30:00", "2026-11-29 02:30:59"}, []bool{false, true, false, false, false}},
		{"nor from the minute after", []string{"2026-11-29 02:29:58", "2026-11-29 02:30:03", "2026-11-29 02:31:03", "2026-11-29 02:30:57"}, []bool{false, true, false, false}},
		{"back by three hours still", []string{"2026-11-29 05:30:00", "2026-11-29 02:30:00"}, []bool{false, false}},
		{"a correction counts at once", []string{"2026-11-29 05:31:00", "2026-11-29 02:30:00", "2026-11-29 02:30:30"}, []bool{false, true, false}},
		{"ten years back", []string{"2036-11-29 02:30:00", "2026-11-29 02:00:00", "2026-11-29 02:30:00"}, []bool{false, false, true}},
		{"it stands still", []string{"2026-11-29 02:29:58", "2026-11-29 02:29:58", "2026-11-29 02:30:00", "2026-11-29 02:30:00"}, []bool{false, false, true, false}},
	} {
		var last time.Time
		for i, l := range c.looks {
			now := at(t, l)
			if got := sunday.Due(last, now); got != c.want[i] {
				t.Errorf("%s: look %d at %s: due %t", c.name, i, l, got)
			}
			if Schedule("").Due(last, now) {
				t.Errorf("%s: no schedule is due", c.name)
			}
			last = Look(last, now)
		}
	}
	east := time.FixedZone("", 5*3600) // the zone of the machine plays no part
	if last := at(t, "2026-11-29 02:29:58"); !sunday.Due(Look(time.Time{}, last), last.Add(3*time.Second).In(east)) {
		t.Error("another zone makes a difference")
	}
}

// Every look forwards by less than a minute finds each moment once, and Next names the one that is found next.
func TestNextIsTheMinuteThatIsDueNext(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for _, text := range []string{"30 2 * * 0", "* * * * *", "*/7 3-5 * * *", "0 0 1 * 1", "0 12 31 * *", "5,10-12 */6 * 1-3 mon-fri", "59 23 * dec sun", "0 4 * * 5-7", "0 4 1-7 * */2"} {
		s, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for range 3 {
			now := leap.Add(time.Duration(rnd.Int63n(int64(3 * 365 * 24 * time.Hour))))
			next, ok := s.Next(now)
			if !ok {
				t.Fatalf("%s has no next after %v", s, now)
			}
			if next.Sub(now) > 40*24*time.Hour {
				now = next.Add(-40 * 24 * time.Hour) // minute by minute through a year would take long
			}
			last := Look(time.Time{}, now)
			for at := now.Add(time.Minute); !s.Due(last, at); at = at.Add(time.Minute) {
				if last = Look(last, at); last.After(next) {
					t.Fatalf("%s: after %v the next is %v, and it is not due then", s, now, next)
				}
			}
			if want := last.Add(time.Minute); !next.Equal(want) {
				t.Errorf("%s: after %v the next is %v, due at %v", s, now, next, want)
			}
		}
	}
	if _, ok := Schedule("").Next(leap); ok {
		t.Error("no schedule has a next time")
	}
}

func TestOnlyFiveFieldsWithinTheirBoundsAreTaken(t *testing.T) {
	for text, want := range map[string]string{
		"  30   2 * *\tsun ":  "30 2 * * SUN",
		"0-59/5 0 1 1 7":      "0-59/5 0 1 1 7",
		"0 0 29 2 *":          "0 0 29 2 *",
		"1,2,3 * * jan-mar *": "1,2,3 * * JAN-MAR *",
	} {
		if s, err := Parse(text); err != nil || string(s) != want {
			t.Errorf("%q is read as %q, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		"": "0 fields", "30 2 * *": "4 fields", "0 30 2 * * 0": "6 fields", "@daily": "1 fields", "30 2 * * 0 2027 *": "7 fields",
		"60 2 * * 0": `"60" is no minute`, "30 24 * * 0": "no hour", "30 2 0 * *": "no day of the month", "30 2 32 * *": "no day of the month",
		"30 2 * 13 *": "no month", "30 2 * * 8": "no day of the week", "30 2 * * funday": `"FUNDAY"`, "sun 2 * * *": "no minute",
		"0,99 * * * *": `"99" is no minute`, "*,x * * * *": `"X" is no minute`, ", * * * *": "no minute", "5-2 * * * *": "no minute", "*/0 * * * *": "no minute", "*/ * * * *": "no minute",
		"*/99 * * * *": "no minute", "5/2 * * * *": "no minute", "1-2-3 * * * *": "no minute", "-1 * * * *": "no minute", "+1 * * * *": "no minute", "001 * * * *": "no minute",
		"* * L * *": "no day of the month", "* * 15W * *": "no day of the month", "* * * * 5#2": "no day of the week", "? * * * *": "no minute",
		"0 0 31 2 *": "no such day", "0 0 31 4,6 *": "no such day", strings.Repeat("1,", 200) + "1 * * * *": "longer",
	} {
		if s, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is read as %q, %v", text, s, err)
		}
	}
}

// FuzzParse: what is taken stays the same when it is read again, and comes.
func FuzzParse(f *testing.F) {
	f.Add("30 2 * * 0")
	f.Add("*/7 1-5/2,9 jan,3 * sun-7")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(string(s))
		if next, ok := s.Next(leap); err != nil || again != s || !ok || !s.Due(Look(time.Time{}, next.Add(-time.Minute)), next) {
			t.Errorf("%q: %q, %v, next %v", s, again, err, next)
		}
	})
}

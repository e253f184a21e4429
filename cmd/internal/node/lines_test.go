package node

import (
	"testing"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/replication/shape"
)

// The calendar of the configuration says the same as the line's: days from Monday on, minutes in UTC.
func TestCalendarOfALinkGoesByUTC(t *testing.T) {
	s := settingsOf(config.Link{Rate: 80, Reserve: 30, Compress: config.CompressAuto, Calendar: []config.Window{{Days: [7]bool{6: true}, From: 22 * 60, To: 6 * 60, Rate: 20}}})
	if s.Rate != 80 || s.Reserve != 30 || s.Compress != shape.Auto || settingsOf(config.Link{}).Compress != shape.Off {
		t.Fatalf("%+v", s)
	}
	east := time.FixedZone("east", 2*3600)
	for _, c := range []struct {
		at   time.Time
		want int64
	}{
		{time.Date(2026, 11, 29, 21, 59, 59, 0, time.UTC), 80}, // a Sunday
		{time.Date(2026, 11, 29, 22, 0, 0, 0, time.UTC), 20},
		{time.Date(2026, 11, 30, 5, 59, 0, 0, time.UTC), 20},
		{time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC), 80},
		{time.Date(2026, 11, 30, 7, 59, 0, 0, east), 20},
		{time.Date(2026, 11, 30, 22, 30, 0, 0, time.UTC), 80},
	} {
		if got := s.RateAt(minuteOfWeek(c.at)); got != c.want {
			t.Errorf("%v: rate %d, want %d", c.at, got, c.want)
		}
	}
}

package resource

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

func TestServiceStartsOnlyWhenItRunsNowhereElse(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Standing, Promise)
		at     Instant
		want   bool
	}{
		"the other said it stopped":   {func(s *Standing, _ Promise) { s.Others["beta"] = true }, 0, true},
		"the other is silent":         {func(*Standing, Promise) {}, 2*second - 1, false},
		"its guard had its time":      {func(*Standing, Promise) {}, 2 * second, true},
		"one of two others is silent": {func(s *Standing, _ Promise) { s.Others["beta"], s.Others["delta"] = true, false }, 1, false},
		"there is no other":           {func(s *Standing, _ Promise) { s.Others = nil }, 0, true},
		"the volumes are not served":  {func(s *Standing, _ Promise) { s.Others["beta"], s.Serving = true, false }, 9 * second, false},
		"another promised to lead":    {func(s *Standing, p Promise) { s.Others["beta"] = true; p.Give(map[string]cluster.Epoch{"v": 8}) }, 9 * second, false},
		"a promise of this epoch":     {func(s *Standing, p Promise) { s.Others["beta"] = true; p.Give(map[string]cluster.Epoch{"v": 7}) }, 0, true},
		"an older promise after a newer": {func(_ *Standing, p Promise) {
			p.Give(map[string]cluster.Epoch{"v": 8})
			p.Give(map[string]cluster.Epoch{"v": 7})
		}, 9 * second, false},
		"a promise of another volume": {func(s *Standing, p Promise) { p.Give(map[string]cluster.Epoch{"w": 8}) }, 2 * second, true},
	} {
		s := Standing{Serving: true, Epochs: map[string]cluster.Epoch{"v": 7}, Learned: 0, Wait: 2 * time.Second, Others: map[string]bool{"beta": false}}
		p := Promise{}
		c.change(&s, p)
		if got, why := s.MayStart(c.at, p); got != c.want || got != (why == "") {
			t.Errorf("%s: %t, %q", name, got, why)
		}
	}
}

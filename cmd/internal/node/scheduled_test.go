package node

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
)

// told waits for the n-th event of a kind on a node and gives its text.
func told(t *testing.T, node *Node, kind string, nth int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		events, changed := node.events.since(0)
		n := 0
		for _, e := range events {
			if e.Kind == kind {
				if n++; n == nth {
					return e.Text
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s was told %q %d times, not %d: %+v", node.me.Name, kind, n, nth, events)
		}
	}
}

// times is how often an event of that kind was told.
func times(node *Node, kind string) (n int) {
	events, _ := node.events.since(0)
	for _, e := range events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// The time of day stands still a day before the schedule's, while the looks at its minute are made here; then it gets there.
func TestScheduledVerifyIsBegunByThePrimaryOnceInItsMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole cluster takes its time: not with -short")
	}
	minute := time.Date(2026, 11, 29, 2, 30, 0, 0, time.UTC)
	var day atomic.Pointer[time.Time]
	saturday := minute.AddDate(0, 0, -1)
	day.Store(&saturday)
	t.Cleanup(func() { wallClock = time.Now }) // when no node runs any more
	wallClock = func() time.Time { return *day.Load() }
	c := startTrio(t, "  verify { schedule = \"30 2 * * sun\" }\n")
	s := c.until("its next verify is known, and there is a standby to compare with", func(s *api.Status) bool {
		return s.Volumes[0].VerifyNext != nil && slices.ContainsFunc(c.nodes, func(n *Node) bool {
			r := n.vols.replica("vol")
			if r == nil {
				return false
			}
			serving, ok := r.Serving()
			return ok && serving.Peers[0].Connected
		})
	})
	if v := s.Volumes[0]; !v.VerifyNext.Equal(minute) || v.Verify != nil {
		t.Errorf("next at %v, %+v", v.VerifyNext, v.Verify)
	}
	var primary *Node
	look := func(offsets ...time.Duration) {
		last := minute.Add(-time.Minute)
		for _, off := range offsets {
			next := last
			for _, n := range c.nodes {
				if n.me.Name == s.Volumes[0].Primary {
					primary = n
				}
				next = n.lookAtSchedules(t.Context(), last, minute.Add(off))
			}
			last = next
		}
	}
	const by = `the schedule "30 2 * * SUN"`
	look(-time.Second, 0, 5*time.Second, time.Minute, -time.Hour, 30*time.Second)
	if text := told(t, primary, "verify began", 1); !strings.Contains(text, by) || !strings.Contains(text, "repair false") {
		t.Error(text)
	}
	told(t, primary, "verify done", 1)
	s = c.until("it has ended", func(s *api.Status) bool {
		return s.Volumes[0].Verify != nil && s.Volumes[0].Verify.State == api.VerifyDone
	})
	if v := s.Volumes[0].Verify; v.By != by || v.Repair || !v.Equal() || v.Primary != primary.me.Name {
		t.Errorf("%+v", v)
	}
	for _, n := range c.nodes {
		want := 0
		if n == primary {
			want = 1
		}
		if began, refused := times(n, "verify began"), times(n, "verify refused"); began != want || refused != 0 {
			t.Errorf("%s began %d and was refused %d", n.me.Name, began, refused)
		}
	}
	sunday := minute.Add(20 * time.Second)
	day.Store(&sunday) // by the looks that nodes make by themselves
	told(t, primary, "verify done", 2)

	for i, n := range c.nodes { // the standby stops: there is nobody left to compare with
		if n != primary && n.me.Name != "gamma" {
			c.stops[i]()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for times(primary, "verify refused") == 0 && ctx.Err() == nil { // some may begin before it is seen to be gone
		primary.lookAtSchedules(ctx, minute.Add(-time.Minute), minute)
		time.Sleep(50 * time.Millisecond)
	}
	if text := told(t, primary, "verify refused", 1); !strings.Contains(text, by) || !strings.Contains(text, "nothing to compare") && !strings.Contains(text, "runs already") {
		t.Error(text)
	}
}

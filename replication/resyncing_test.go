package replication

import (
	"strings"
	"testing"
	"time"

	"hacluster/replication/primary"
)

func TestEventsOfTheLifeOfAResync(t *testing.T) {
	var s resyncing
	now := time.Minute
	g := primary.Progress{Resyncing: true, Connected: true, RemainingBytes: 100 << 20}
	look := func(after time.Duration, want string, words ...string) {
		t.Helper()
		now += after
		kind, text := s.look(now, "beta", g)
		if kind != want {
			t.Fatalf("%q (%s), want %q", kind, text, want)
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%q does not say %q", text, w)
			}
		}
	}
	look(0, "resync begun", "beta", "104857600 bytes")
	g.RemainingBytes = 90 << 20
	look(time.Second, "")
	look(29*time.Second, "")
	look(2*time.Second, "resync stalled", "94371840 bytes")
	look(time.Second, "")
	g.RemainingBytes = 80 << 20
	look(time.Second, "resync goes on")
	g.Resyncing, g.Paused = false, true
	look(time.Second, "resync paused", "83886080 bytes")
	look(time.Hour, "")
	g.Resyncing, g.Paused = true, false
	look(time.Second, "resync goes on")
	look(20*time.Second, "") // the pause was no stall
	g.Resyncing, g.Spoilt = false, true
	look(time.Second, "resync interrupted", "83886080 bytes", "own disk failed")
	g.Resyncing, g.Spoilt = true, false
	look(time.Second, "resync goes on")
	g.Resyncing, g.Connected = false, false
	look(time.Second, "resync interrupted", "83886080 bytes")
	g.Resyncing, g.Connected = true, true
	look(time.Second, "resync goes on")
	g = primary.Progress{Connected: true, Member: true, ComparedBytes: 100 << 20, CopiedBytes: 3 << 20}
	look(time.Second, "resync ended", "104857600 bytes compared", "3145728 bytes copied", "3661.0 s")
	look(time.Second, "")
	g = primary.Progress{Resyncing: true, Connected: true, RemainingBytes: 4096}
	look(time.Second, "resync begun", "4096 bytes")
}

func TestResyncThatEndsBetweenTwoLooksIsNoResync(t *testing.T) {
	var s resyncing
	if kind, text := s.look(time.Second, "beta", primary.Progress{Member: true, Connected: true}); kind != "" {
		t.Fatalf("%q: %s", kind, text)
	}
}

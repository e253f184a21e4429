package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/control"
)

// history runs standbys that are behind by turns through a lagBook, as followLags does, and keeps what was told.
type history struct {
	book   lagBook
	now    time.Duration
	told   []string
	texts  []string
	serves control.Serving
}

func newHistory() *history {
	return &history{book: lagBook{}, serves: control.Serving{Volume: "db", Epoch: 3, Bound: &control.Bound{Bytes: 1000, Ms: 5000, PatienceMs: 10000},
		Peers: []control.Peer{{Node: "beta", Connected: true, Lag: &control.Lag{}}}}}
}

// pass has the standby be so far behind for a while.
func (h *history) pass(d time.Duration, perMille int64, held bool) {
	h.serves.Peers[0].Lag = &control.Lag{Bytes: perMille, Ms: 5 * perMille, PerMille: perMille, Slowed: perMille >= 500, Held: held, HeldMs: 1234}
	for end := h.now + d; h.now < end; h.now += lagLook {
		h.look()
	}
}

func (h *history) look() {
	h.book.look(h.now, []control.Serving{h.serves}, func(kind, volume, text string) {
		h.told = append(h.told, kind)
		h.texts = append(h.texts, text)
	})
}

// want takes what was told since the last call.
func (h *history) want(t *testing.T, kinds ...string) {
	t.Helper()
	if !slices.Equal(h.told, kinds) {
		t.Errorf("told %q, want %q", h.told, kinds)
	}
	h.told = nil
}

// R13: an operator hears of it before the bound is reached, when writers are slowed, when they wait, and when it is over.
func TestHistoryTellsOfAStandbyThatFallsBehind(t *testing.T) {
	h := newHistory()
	h.pass(time.Minute, 499, false)
	h.want(t)
	h.pass(time.Second, 500, false)
	h.want(t, "writers slowed")
	h.pass(time.Second, 760, false)
	h.want(t, "lag near its bound")
	h.pass(time.Second, 1000, true)
	h.want(t, "writers held")
	h.pass(time.Second, 700, false)
	h.pass(time.Second, 0, false)
	h.pass(time.Second, 1000, true) // no sooner over than here again
	h.want(t)
	h.pass(time.Minute, 10, false)
	h.want(t, "lag caught up")
	for i, want := range []string{"beta lacks 500 bytes of at most 1000, the oldest acknowledged 2.5s ago (from 5s on nothing more is): the line to it, or its disk, is slower than the writers", "76 % of what a failover may lose is used",
		"that has held writers for 1.2s, and after 10s it is dropped", "in which beta lacked 1000 bytes at most, the oldest for 5s"} {
		if !strings.Contains(h.texts[i], want) {
			t.Errorf("%q is not in %q", want, h.texts[i])
		}
	}
}

// One that reaches the bound at once is told of as that.
func TestHistoryLeavesOutLevelsThatWerePassedAtOnce(t *testing.T) {
	h := newHistory()
	h.serves.Peers[0].Connected, h.serves.Peers[0].Reason = false, "connection refused"
	h.pass(time.Second, 900, true)
	h.want(t, "writers held")
	if !strings.Contains(h.texts[0], "it is not connected: connection refused") {
		t.Error(h.texts)
	}
}

// A drop has its own event; who was dropped has not caught up.
func TestHistoryOfADroppedStandbyEndsWithoutAWord(t *testing.T) {
	h := newHistory()
	h.pass(time.Second, 1000, true)
	h.want(t, "writers held")
	h.serves.Peers[0].Lag = nil
	for range 1000 {
		h.now += lagLook
		h.look()
	}
	h.pass(time.Minute, 0, false)
	h.want(t)
	h.pass(time.Second, 600, false)
	h.want(t, "writers slowed")
}

// Another epoch is another tale, and what is not served any more takes no memory.
func TestHistoryBeginsAnewWithAnEpoch(t *testing.T) {
	h := newHistory()
	h.pass(time.Second, 600, false)
	h.serves.Epoch++
	h.pass(time.Second, 600, false)
	h.want(t, "writers slowed", "writers slowed")
	h.book.look(h.now, nil, func(kind, _, _ string) { t.Errorf("told %s", kind) })
	if len(h.book) != 0 {
		t.Errorf("%d volumes are remembered", len(h.book))
	}
}

// R28: a load that swings for a day must not push everything else out of the history; and a new trouble is told at once.
func TestHistoryIsNotFloodedByALoadThatSwings(t *testing.T) {
	for _, period := range []time.Duration{time.Second, 15 * time.Second, time.Minute, 5 * time.Minute} {
		h := newHistory()
		for h.now < 24*time.Hour {
			h.pass(period, 1000, true)
			h.pass(period, 0, false)
		}
		if n := len(h.told); n == 0 || n > 600 {
			t.Errorf("with a period of %v, %d events in a day", period, n)
		}
		if !slices.Contains(h.told, "writers held") {
			t.Errorf("with a period of %v: %q", period, h.told)
		}
		h.pass(time.Hour, 0, false)
		h.told = nil
		h.pass(time.Second, 600, false)
		h.want(t, "writers slowed")
	}
}

func TestLevelsAreThoseOfTheBound(t *testing.T) {
	for want, lags := range [lagLevels][]control.Lag{
		{{}, {PerMille: 499}}, {{PerMille: 500, Slowed: true}, {PerMille: 749, Slowed: true}},
		{{PerMille: 750, Slowed: true}, {PerMille: 1000, Slowed: true}}, {{PerMille: 900, Slowed: true, Held: true}},
	} {
		for _, g := range lags {
			if got := levelOf(&g); got != want {
				t.Errorf("%s is level %d, want %d", fmt.Sprint(g), got, want)
			}
		}
	}
}

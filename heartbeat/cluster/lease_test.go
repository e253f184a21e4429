package cluster

import (
	"testing"
	"time"
)

const (
	second = Instant(time.Second)
	lease  = 3 * time.Second
)

func grant(h *Holder, number uint64) Grant {
	return Grant{Node: "p", Start: 4, Number: number, Term: 5, Length: lease, Volumes: map[string]Epoch{"v": 3}}
}

func TestLeaseCountsFromTheSendingOfTheRequest(t *testing.T) { // R8
	h := NewHolder("p", 4)
	n := h.Next(100 * second)
	if h.Valid("v", 3, 100*second) {
		t.Fatal("valid before any answer")
	}
	if !h.Answer(grant(h, n)) { // it comes two seconds later: that does not matter
		t.Fatal("not taken")
	}
	for at, want := range map[Instant]bool{100 * second: true, 103*second - 1: true, 103 * second: false, 200 * second: false} {
		if got := h.Valid("v", 3, at); got != want {
			t.Errorf("at %v: valid %t, want %t", at, got, want)
		}
	}
	if h.Until("v", 3) != 103*second || h.Remaining(101*second) != 2*time.Second {
		t.Fatalf("until %v, remaining %v", h.Until("v", 3), h.Remaining(101*second))
	}
}

func TestLeaseServesOnlyWhatItNames(t *testing.T) { // R9
	h := NewHolder("p", 4)
	h.Answer(grant(h, h.Next(100*second)))
	if h.Valid("u", 3, 100*second) || h.Valid("v", 2, 100*second) || h.Valid("v", 4, 100*second) {
		t.Fatal("another volume or epoch is served")
	}
	g := grant(h, h.Next(101*second))
	g.Volumes = map[string]Epoch{"u": 1}
	h.Answer(g)
	if h.Valid("v", 3, 101*second) {
		t.Fatal("the newest grant does not name the volume any more, and it is served")
	}
}

func TestAnswerIsIgnored(t *testing.T) { // R9
	for name, change := range map[string]func(h *Holder, g *Grant){
		"for another node":              func(h *Holder, g *Grant) { g.Node = "q" },
		"for an older process":          func(h *Holder, g *Grant) { g.Start = 3 },
		"for a newer process":           func(h *Holder, g *Grant) { g.Start = 5 },
		"for a request that never was":  func(h *Holder, g *Grant) { g.Number = 2 },
		"for request 0":                 func(h *Holder, g *Grant) { g.Number = 0 },
		"for a number far in the sky":   func(h *Holder, g *Grant) { g.Number = 1 << 63 },
		"for the number of a give-up":   func(h *Holder, g *Grant) { g.Number = h.GiveUp("u") },
		"for a request that is too old": func(h *Holder, g *Grant) { send(h, holderWindow) },
	} {
		h := NewHolder("p", 4)
		g := grant(h, h.Next(100*second))
		if change(h, &g); h.Answer(g) || h.Valid("v", 3, 100*second) {
			t.Errorf("%s: taken", name)
		}
	}
}

func send(h *Holder, n int) {
	for range n {
		h.Next(100 * second)
	}
}

func TestOldestRememberedRequestStillCounts(t *testing.T) {
	h := NewHolder("p", 4)
	g := grant(h, h.Next(90*second))
	send(h, holderWindow-1)
	if !h.Answer(g) || h.Until("v", 3) != 93*second {
		t.Fatalf("until %v, want 93 s: the lease of the request that was answered", h.Until("v", 3))
	}
}

func TestLateAnswerDoesNotReplaceANewerOne(t *testing.T) { // R9
	h := NewHolder("p", 4)
	first, second2 := h.Next(100*second), h.Next(101*second)
	g := grant(h, second2)
	g.Volumes = nil
	h.Answer(g)
	if h.Answer(grant(h, first)) || h.Answer(grant(h, second2)) || h.Valid("v", 3, 101*second) {
		t.Fatal("a late or repeated answer was taken")
	}
}

func TestGivenUpVolumeIsServedOnlyByAGrantAskedForAfterwards(t *testing.T) { // R9, R30
	h := NewHolder("p", 4)
	h.Answer(grant(h, h.Next(100*second)))
	underWay := h.Next(100 * second)
	number := h.GiveUp("v")
	if h.Valid("v", 3, 100*second) {
		t.Fatal("served after it was given up")
	}
	if number <= underWay {
		t.Fatalf("give-up %d does not follow request %d", number, underWay)
	}
	g := grant(h, underWay)
	g.Volumes["u"] = 7
	if !h.Answer(g) || h.Valid("v", 3, 100*second) || !h.Valid("u", 7, 100*second) {
		t.Fatal("an answer to a request made before counts for what was given up, or does not for the rest")
	}
	if h.Answer(grant(h, h.Next(101*second))); !h.Valid("v", 3, 101*second) {
		t.Fatal("a grant asked for afterwards does not count")
	}
}

func TestHolderForgetsNoGiveUpWhileItsWindowTurns(t *testing.T) { // R9
	h := NewHolder("p", 4)
	for range 5 * holderWindow {
		n := h.Next(100 * second)
		h.GiveUp("v")
		if h.Answer(grant(h, n)); h.Valid("v", 3, 100*second) {
			t.Fatal("an answer from before the give-up counts")
		}
	}
}

func TestSameIsOfTheGrantInForceOnly(t *testing.T) { // R9
	same := func(h *Holder, of uint64) Grant {
		return Grant{Node: "p", Start: 4, Number: h.Next(101 * second), Term: 5, Length: lease, Same: of}
	}
	h := NewHolder("p", 4)
	if h.Answer(same(h, 1)) {
		t.Fatal("the same as nothing is taken")
	}
	h.Answer(grant(h, h.Next(100*second))) // 2
	if g := same(h, 2); !h.Answer(g) || h.Until("v", 3) != 104*second {
		t.Fatalf("not taken: until %v", h.Until("v", 3))
	}
	if g := same(h, 2); !h.Answer(g) {
		t.Error("the same as one before, which named the same, is not taken")
	}
	renamed := h.Renamed()
	other := grant(h, h.Next(102*second))
	other.Volumes = map[string]Epoch{"u": 1}
	h.Answer(other)
	if h.Renamed() == renamed {
		t.Error("another name is no change")
	}
	for name, g := range map[string]Grant{"of one that is not in force": same(h, 3), "of one that never was": same(h, 90)} {
		if h.Answer(g) || h.Valid("v", 3, 102*second) {
			t.Errorf("%s: taken", name)
		}
	}
	g := same(h, other.Number)
	g.Term++
	if h.Answer(g) {
		t.Error("of another term: taken")
	}
}

func TestSameNamesWhatWasGivenUpOnlyWhenAskedForAfterwards(t *testing.T) { // R9, R30
	h := NewHolder("p", 4)
	h.Answer(grant(h, h.Next(100*second)))
	underWay := h.Next(100 * second)
	h.GiveUp("v")
	g := Grant{Node: "p", Start: 4, Number: underWay, Term: 5, Length: lease, Same: 1}
	if !h.Answer(g) || h.Valid("v", 3, 100*second) {
		t.Fatal("not taken, or it names what was given up")
	}
	renamed := h.Renamed()
	g.Number = h.Next(101 * second)
	if !h.Answer(g) || !h.Valid("v", 3, 101*second) || h.Renamed() == renamed {
		t.Error("one that was asked for afterwards does not name it")
	}
}

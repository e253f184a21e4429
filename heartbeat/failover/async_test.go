package failover

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

const wait = lease / 4 // for who served last

// asyncRig is newRig in async: p serves with a grant in force.
func asyncRig(t *testing.T) *rig {
	g := newRig(t)
	g.change(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeAsync, "p" })
	g.request("p")
	return g
}

// promote has what was proposed last committed.
func (g *rig) promote() {
	g.t.Helper()
	if r := g.commit(cluster.Command{By: "w", Promote: g.promotion()}); r.Void != "" {
		g.t.Fatal(r.Void)
	}
	g.proposals = nil
}

// act has the primary remove the last one.
func (g *rig) act() {
	g.t.Helper()
	v := g.vol()
	if r := g.commit(cluster.Command{By: v.Primary, Drop: &cluster.Drop{On: cluster.On{Volume: "v", Epoch: v.Epoch, Version: v.Version}, Node: v.Previous}}); r.Void != "" {
		g.t.Fatal(r.Void)
	}
}

// A standby is promoted when the lease is over and the last primary was not heard for a quarter of one more, and that one is held.
func TestAsyncStandbyFollowsWhoIsGone(t *testing.T) { // R6, R12, R19
	g := asyncRig(t)
	g.reach["p"] = false
	g.pass(full + wait - 200*time.Millisecond)
	g.wantNoPromotion("p, which has every acknowledged write, had no time to be heard")
	g.pass(400 * time.Millisecond)
	g.wantPromotion("s", cluster.BasisUnchanged)
	g.promote()
	if v := g.vol(); v.Previous != "p" || !v.IsHeld("p") {
		t.Fatalf("previous %q, held %v", v.Previous, v.Held)
	}
	g.act()
	if v := g.vol(); v.IsMember("p") || v.Served != "s" {
		t.Fatalf("set %v, served %q", v.MemberNames(), v.Served)
	}
}

// The last primary has every acknowledged write: it goes first, if its kernel or a clean-stop mark says that it lost none.
func TestAsyncWhoServedGoesFirst(t *testing.T) { // R6
	for name, back := range map[string]func(g *rig){
		"its process was replaced": func(g *rig) {
			g.restart("p", incA)
			g.request("p")
		},
		"it is back after the end of its lease": func(g *rig) {
			g.reach["p"] = false
			g.pass(full + 100*time.Millisecond)
			g.restart("p", incA)
			g.reach["p"] = true
		},
	} {
		g := asyncRig(t)
		back(g)
		g.pass(wait + 500*time.Millisecond)
		if p := g.promotion(); p == nil {
			t.Fatalf("%s: nobody is promoted", name)
		}
		g.wantPromotion("p", cluster.BasisUnchanged, "s")
		g.promote()
		if v := g.vol(); len(v.Held) != 0 || v.IsMember("s") {
			t.Errorf("%s: held %v, set %v", name, v.Held, v.MemberNames())
		}
	}
	g := asyncRig(t)
	g.restart("p", incB)
	g.report("p", func(r *cluster.Report) { r.Clean = &cluster.Clean{Incarnation: incA, Process: 1} })
	g.pass(2 * full)
	g.wantPromotion("p", cluster.BasisClean, "s")
}

// A last primary that lost its memory, or whose disk failed, has not all: the standby goes first, and nothing is waited for.
func TestAsyncStandbyGoesBeforeWhoLostSomething(t *testing.T) { // R6, R23, R25
	for name, c := range map[string]struct {
		harm  func(g *rig)
		leave []string
	}{
		"its memory": {func(g *rig) { g.restart("p", incB) }, []string{"p"}},
		"its memory, unflushed": {func(g *rig) {
			g.restart("p", incB)
			g.report("p", func(r *cluster.Report) { r.Unmarked = &cluster.Keeper{Boot: "a", Process: 1} })
		}, nil},
		"its disk": {func(g *rig) {
			g.report("p", func(r *cluster.Report) { r.Failed = true })
			g.giveUp(term, func(u *GiveUp) { u.Failed = true })
		}, []string{"p"}},
		"its disk, and it did not say so": {func(g *rig) { g.report("p", func(r *cluster.Report) { r.Failed = true }) }, nil},
	} {
		g := asyncRig(t)
		c.harm(g)
		g.pass(full + 200*time.Millisecond)
		if p := g.promotion(); p == nil {
			t.Fatalf("%s: nobody is promoted", name)
		}
		g.wantPromotion("s", cluster.BasisUnchanged, c.leave...)
		if g.promote(); !g.held("p") {
			t.Errorf("%s: p is not held", name)
		}
	}
}

func (g *rig) held(n string) bool { v := g.vol(); return v.IsHeld(n) }

// Who is heard under its old process and does not ask for its lease in another one's time serves nobody: it must not keep the
// standby from following for ever.
func TestAsyncWhoDoesNotAskIsNotPromotedAgainAndAgain(t *testing.T) {
	g := asyncRig(t)
	g.pass(full + full/2)
	g.wantNoPromotion("it may ask again")
	g.pass(full)
	g.wantPromotion("s", cluster.BasisUnchanged)

	g = asyncRig(t) // no standby: it itself, as in sync
	g.reach["s"] = false
	g.pass(3 * full)
	g.wantPromotion("p", cluster.BasisUnchanged, "s")
}

// A standby that has yet to write what it took is no prefix of the order.
func TestAsyncStandbyHasWrittenWhatItTook(t *testing.T) { // R13
	g := asyncRig(t)
	g.report("s", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 7 })
	g.reach["p"] = false
	g.pass(4 * full)
	g.wantNoPromotion("s has written entries beside each other, and not all of them")
	g.report("s", func(r *cluster.Report) { r.LastSeq = 9 })
	g.pass(full)
	g.wantPromotion("s", cluster.BasisUnchanged)

	g = asyncRig(t)
	g.reach["p"] = false
	g.restart("s", incA)
	g.pass(8 * full)
	g.wantNoPromotion("the last process of s may have ended between two writes")
	g.restart("s", incA)
	g.report("s", func(r *cluster.Report) { r.Clean = &cluster.Clean{Incarnation: incA, Process: 1} })
	g.pass(full)
	g.wantPromotion("s", cluster.BasisClean)
	if g.promote(); !g.held("p") {
		t.Error("p is not held")
	}
}

// A hand-over lost nothing: all stay, nobody is held, and who served is not waited for.
func TestAsyncHandOver(t *testing.T) { // R30
	g := asyncRig(t)
	g.run(g.l.Order(g.now, "v", Order{To: "s"}))
	g.reach["p"] = false
	if !g.giveUp(term, func(u *GiveUp) { u.To = "s" }) {
		t.Fatal("the give-up does not count")
	}
	g.wantPromotion("s", cluster.BasisHandOver)
	g.promote()
	if v := g.vol(); len(v.Held) != 0 || !v.IsMember("p") || v.Served != "s" || !v.Acts() {
		t.Fatalf("held %v, set %v, served %q", v.Held, v.MemberNames(), v.Served)
	}

	g = asyncRig(t) // the standby has yet to write, as a flush of the hand-over itself
	g.report("s", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 8 })
	g.giveUp(term, func(u *GiveUp) { u.To = "s" })
	g.pass(full / 4)
	g.wantNoPromotion("s follows in a moment, and p does not take it back")
	g.report("s", func(r *cluster.Report) { r.LastSeq = 9 })
	g.pass(full)
	g.wantPromotion("s", cluster.BasisHandOver)
}

// A give-up that an earlier leader's grant may have overtaken: who asks on may have been given the volume once more and have gone on
// since, and keeps it. Who asks no more, as one that stops, does not.
func TestAsyncGiveUpThatMayBeOvertaken(t *testing.T) { // R10, R30
	for _, asks := range []bool{true, false} {
		g := asyncRig(t)
		if !g.giveUp(term - 1) {
			t.Fatal("the give-up does not count")
		}
		g.pass(full / 2)
		g.wantNoPromotion("it may ask on")
		if asks {
			if g.request("p"); !g.named("p") {
				t.Error("it is not given the volume back")
			}
			g.wantNoPromotion("it may have more than it had given up")
			continue
		}
		g.pass(full)
		g.wantPromotion("s", cluster.BasisUnchanged)
		if g.promote(); !g.held("p") {
			t.Error("p is not held")
		}
	}
}

// Nobody is promoted by itself who may lack more than the bound of what was flushed.
func TestAsyncWhenAllLostTheirMemory(t *testing.T) { // R20, R25
	g := asyncRig(t)
	g.restart("p", incB)
	g.restart("s", incB)
	g.report("p", func(r *cluster.Report) { r.Failed = true })
	g.pass(8 * full)
	g.wantNoPromotion("s may have flushed less than the bound allows it to lack")
	g.report("p", func(r *cluster.Report) { r.Failed = false })
	g.pass(full)
	g.wantPromotion("p", cluster.BasisLastPrimary, "s")
	if g.promote(); !g.held("s") {
		t.Error("s is not held: it may have what p lost unflushed")
	}

	g = asyncRig(t) // its process only: it may have ended between two writes
	g.restart("p", incB)
	g.restart("s", incA)
	g.pass(8 * full)
	g.wantNoPromotion("s is no prefix, and p lost its memory")
}

// Until the new one acts the last one stays promotable, and then lacks nothing.
func TestAsyncBackToWhoServedBeforeTheNewOneActs(t *testing.T) { // R6
	g := asyncRig(t)
	g.reach["p"] = false
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged)
	g.promote()
	g.reach["s"] = false
	g.restart("p", incA)
	g.reach["p"] = true
	g.pass(3 * full)
	g.wantPromotion("p", cluster.BasisUnchanged)
	g.promote()
	if v := g.vol(); len(v.Held) != 0 || v.Previous != "s" {
		t.Fatalf("held %v, previous %q", v.Held, v.Previous)
	}

	g = asyncRig(t) // and with its memory it lost what s may have, which nobody was told of: a person decides
	g.reach["p"] = false
	g.pass(2 * full)
	g.promote()
	g.reach["p"] = true
	g.restart("s", incB)
	g.restart("p", incB)
	g.pass(8 * full)
	g.wantPromotion("p", cluster.BasisLastPrimary, "s")
}

// What the primary says of what others lack goes into the record of the failover, with its age.
func TestAsyncLagIsKeptForTheRecord(t *testing.T) {
	g := asyncRig(t)
	lag := func(bytes int64) {
		g.report("p", func(r *cluster.Report) { r.Lag = &cluster.Lag{Bytes: bytes, Ms: 20, MaxBytes: 1 << 20, MaxMs: 5000} })
	}
	lag(4096)
	g.request("p")
	g.pass(time.Second)
	lag(8192)
	g.request("p")
	g.reach["p"] = false
	g.report("p", func(r *cluster.Report) { r.Epoch, r.Lag = 2, &cluster.Lag{Bytes: 1} }) // of an older epoch
	g.numbers["p"]++
	g.pass(2 * full)
	p := g.wantPromotion("s", cluster.BasisUnchanged)
	if age := time.Duration(p.LagAgeMillis) * time.Millisecond; p.Lag == nil || p.Lag.Bytes != 8192 || age < full || age > full+wait+time.Second {
		t.Errorf("%+v, %d ms before", p.Lag, p.LagAgeMillis)
	}

	g = asyncRig(t)
	g.report("s", func(r *cluster.Report) { r.Lag = &cluster.Lag{Bytes: 7} }) // it is no primary
	g.reach["p"] = false
	g.pass(2 * full)
	if p := g.wantPromotion("s", cluster.BasisUnchanged); p.Lag != nil {
		t.Errorf("%+v, and the primary said nothing", p.Lag)
	}
}

// At the first start nothing was acknowledged, and all stay.
func TestAsyncFirstStart(t *testing.T) {
	g := newRig(t)
	g.change(func(v *cluster.Volume) { v.Mode, v.Epoch, v.Primary, v.Process = cluster.ModeAsync, 0, "", 0 })
	g.pass(full)
	g.wantPromotion("p", cluster.BasisFirst)
	g.promote()
	if v := g.vol(); !v.IsMember("s") || v.Served != "p" || !v.Acts() || len(v.Held) != 0 {
		t.Fatalf("set %v, served %q, held %v", v.MemberNames(), v.Served, v.Held)
	}
}

func TestAsyncWhoServedStaysBesideOneThatIsPromotedAgain(t *testing.T) { // R6
	g := asyncRig(t)
	g.reach["p"] = false
	g.pass(2 * full)
	g.promote()
	g.pass(4 * full) // s does not ask for its lease
	g.wantPromotion("s", cluster.BasisUnchanged)
	g.promote()
	if v := g.vol(); !v.IsMember("p") || v.Previous != "p" {
		t.Fatalf("set %v, previous %q", v.MemberNames(), v.Previous)
	}
	g.reach["p"] = true
	g.pass(4 * full)
	g.wantPromotion("p", cluster.BasisUnchanged)
	if g.promote(); g.held("p") {
		t.Error("p is held, and has everything")
	}
}

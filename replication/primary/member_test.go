package primary

import (
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// faults.md G51
func TestSilentMemberIsDroppedBeforeTheWriteItLacksIsAcknowledged(t *testing.T) { // R4
	for name, connected := range map[string]bool{"connected and silent": true, "gone": false} {
		g := newRig(t, "s")
		n := g.up("s")
		op := g.write(0)
		g.local(op, nil)
		if !connected {
			g.down("s", n)
		}
		if acts := g.pass(dropAfter - time.Millisecond); drops(acts, "s") {
			t.Errorf("%s: dropped before its time", name)
		}
		if acts := g.pass(dropAfter); !drops(acts, "s") {
			t.Errorf("%s: not dropped", name)
		}
		g.wantOpen(op) // proposing is not enough
		g.drop("s")
		g.wantDone(op)
		if g.count(Release, op) != 1 {
			t.Errorf("%s: the outbox of a dropped member keeps its entries", name)
		}
	}
}

func TestMemberHasTheWholeTimeFromTheFirstWriteItOwes(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	for range 20 { // idle
		g.pass(dropAfter / 2)
		g.c.Alive(g.now, "s", n)
	}
	g.local(g.write(0), nil)
	if acts := g.pass(dropAfter - time.Millisecond); drops(acts, "s") {
		t.Fatal("dropped before the write was unanswered for DropAfter")
	}
}

func TestMemberThatWasGoneBeforeTheWriteHasLessTime(t *testing.T) { // R4
	g := newRig(t, "s")
	g.down("s", g.up("s"))
	g.pass(dropAfter * 9 / 10)
	g.local(g.write(0), nil)
	if acts := g.pass(dropAfter / 5); !drops(acts, "s") {
		t.Fatal("not dropped although it has been gone for DropAfter")
	}
}

func TestDropIsProposedAgainUntilAnEntryDecides(t *testing.T) { // R27
	g := newRig(t, "s")
	g.up("s")
	op := g.write(0)
	g.local(op, nil)
	g.pass(2 * dropAfter)
	before := len(g.log)
	if acts := g.pass(dropAfter); !drops(acts, "s") {
		t.Fatal("the proposal was not repeated")
	}
	if n := len(g.log) - before; n > 8 {
		t.Fatalf("%d actions in one DropAfter: proposals have to pause", n)
	}
	g.wantOpen(op)
}

func TestIdleMemberThatIsGoneIsDropped(t *testing.T) { // R4
	g := newRig(t, "s")
	g.down("s", g.up("s"))
	if acts := g.pass(2 * dropAfter); !drops(acts, "s") {
		t.Fatal("a member that is gone stays in the set until the next write")
	}
}

func TestIdleMemberIsAskedForASignOfLife(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	for range 10 {
		acts := g.pass(dropAfter / 2)
		if !has(acts, Ping, "s") || drops(acts, "s") {
			t.Fatal("an idle member that answers was not asked, or is dropped")
		}
		g.c.Alive(g.now, "s", n)
	}
	if acts := g.pass(2 * dropAfter); !drops(acts, "s") {
		t.Fatal("an idle member that does not answer is not dropped")
	}
}

// faults.md X103
func TestMemberThatBreaksOffAgainAndAgainIsDropped(t *testing.T) { // R4
	for name, answer := range map[string]func(g *rig, n uint64){
		"takes entries and breaks off":        func(g *rig, n uint64) {},
		"acknowledges what is not new":        func(g *rig, n uint64) { g.ack("s", n, 0) },
		"only answers pings":                  func(g *rig, n uint64) { g.c.Alive(g.now, "s", n) },
		"claims entries that were never made": func(g *rig, n uint64) { g.down("s", n); g.greet("s", Greeting{Incarnation: bootA, LastNum: 99}) },
	} {
		g := newRig(t, "s")
		n := g.up("s")
		op := g.write(0)
		g.local(op, nil)
		dropped := false
		for range 30 {
			dropped = dropped || drops(g.pass(dropAfter/10), "s")
			answer(g, n)
			g.down("s", n)
			dropped = dropped || drops(g.pass(dropAfter/10), "s")
			n = g.up("s")
		}
		if !dropped {
			t.Errorf("%s: not dropped in six times DropAfter; the write waits for ever", name)
		}
		g.wantOpen(op)
	}
}

func TestMemberThatAcknowledgesSlowlyButSteadilyStays(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	for range 20 {
		g.local(g.write(0), nil)
	}
	for num := uint64(1); num <= 20; num++ {
		if acts := g.pass(dropAfter / 2); drops(acts, "s") {
			t.Fatalf("dropped although it acknowledges one entry each half DropAfter (at %d)", num)
		}
		g.ack("s", n, num)
	}
}

func TestMemberThatIsAwayMoreOftenThanThereIsDropped(t *testing.T) { // R4
	g := newRig(t, "s")
	n := g.up("s")
	g.local(g.write(0), nil)
	dropped := false
	for range 10 { // there only between two ticks
		g.down("s", n)
		dropped = dropped || drops(g.pass(dropAfter/3), "s")
		n = g.up("s")
	}
	if !dropped {
		t.Fatal("each short visit restarted the clock of a member that acknowledges nothing")
	}
}

func TestStreamThatWasSupersededDoesNotComeUp(t *testing.T) { // R2
	g := newRig(t, "s")
	old := g.c.NextStream("s")
	g.up("s")
	g.down("s", g.c.peers["s"].stream)
	g.c.Up(g.now, "s", old, Greeting{Incarnation: bootA})
	if acts := g.take(); len(acts) != 0 || g.c.Peer("s").Connected {
		t.Fatalf("an older stream came up: %v", acts)
	}
}

func TestReconnectReplaysWhatWasNotAcknowledged(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	ops := []*Op{g.write(0), g.write(0), g.write(0), g.write(0)}
	for _, op := range ops {
		g.local(op, nil)
	}
	g.ack("s", n, 1)
	g.down("s", n)
	g.wantOpen(ops[1:]...)
	g.greet("s", Greeting{Incarnation: bootA, LastNum: 2}) // the acknowledgement of 2 was lost
	g.wantDone(ops[1])
	if got := g.sent("s"); len(got) != 2 || got[0] != 3 || got[1] != 4 {
		t.Fatalf("replayed %v, want 3 4", got)
	}
	g.wantOpen(ops[2], ops[3])
}

func TestAnswersOfAnOlderStreamCountForNothing(t *testing.T) { // R2
	g := newRig(t, "s")
	old := g.up("s")
	op := g.write(0)
	g.local(op, nil)
	g.down("s", old)
	now := g.up("s")
	if acts := g.ack("s", old, 1); len(acts) != 0 {
		t.Fatalf("an old stream's answer had an effect: %v", acts)
	}
	g.c.Refused(g.now, "s", old, false, "late")
	g.down("s", old)
	g.wantOpen(op)
	g.ack("s", now, 1)
	g.wantDone(op)
}

// faults.md G52
func TestAcknowledgementOfWhatWasNotSentBreaksTheStream(t *testing.T) {
	for _, num := range []uint64{2, 1 << 63} {
		g := newRig(t, "s")
		n := g.up("s")
		op := g.write(0)
		g.local(op, nil)
		if acts := g.ack("s", n, num); !has(acts, Disconnect, "s") {
			t.Fatalf("entry %d was acknowledged, 1 was sent, and the stream goes on", num)
		}
		g.wantOpen(op)
	}
	g := newRig(t, "s")
	n := g.up("s")
	g.write(0)
	g.write(0)
	g.ack("s", n, 2)
	if acts := g.ack("s", n, 1); !has(acts, Disconnect, "s") {
		t.Fatal("an acknowledgement went back and the stream goes on")
	}
}

func TestMemberThatCameBackChangedGetsNothingAndIsDropped(t *testing.T) { // R2, R25
	for name, hello := range map[string]Greeting{
		"other incarnation": {Incarnation: bootB},
		"inconsistent":      {Incarnation: bootA, Inconsistent: true},
		"failed":            {Incarnation: bootA, Failed: true},
	} {
		g := newRig(t, "s")
		op := g.write(0)
		g.local(op, nil)
		before := len(g.log)
		g.greet("s", hello)
		acts := g.log[before:]
		if has(acts, Begin, "s") || has(acts, Send, "s") {
			t.Errorf("%s: it was sent something before the drop", name)
		}
		if !has(acts, Disconnect, "s") || !drops(acts, "s") {
			t.Errorf("%s: it is not being dropped", name)
		}
		g.wantOpen(op)
		g.drop("s")
		g.wantDone(op)
	}
}

func TestMemberWithACleanStopGoesOnUnderItsNewIncarnation(t *testing.T) { // R25
	g := newRig(t, "s")
	n := g.up("s")
	op := g.write(0)
	g.local(op, nil)
	g.down("s", n)
	g.commit(func(v *cluster.Volume) { v.Members["s"] = cluster.Member{Incarnation: bootB, Process: 2} })
	n = g.greet("s", Greeting{Incarnation: bootB, Process: 2})
	g.wantOpen(op)
	g.ack("s", n, 1)
	g.wantDone(op)
}

// faults.md D91
func TestWriteErrorOfAMemberDropsIt(t *testing.T) { // R23
	g := newRig(t, "s")
	n := g.up("s")
	op := g.write(0)
	g.local(op, nil)
	before := len(g.log)
	g.c.Refused(g.now, "s", n, false, "input/output error")
	g.take()
	if acts := g.log[before:]; !drops(acts, "s") || !has(acts, Disconnect, "s") {
		t.Fatal("a member that cannot write is not being dropped")
	}
	g.wantOpen(op)
}

// faults.md G49
func TestChecksumMismatchReplaysOnceAndDropsTheSecondTime(t *testing.T) { // R21
	g := newRig(t, "s")
	n := g.up("s")
	op := g.write(0)
	g.local(op, nil)
	for i, want := range []bool{false, true} {
		before := len(g.log)
		g.c.Refused(g.now, "s", n, true, "checksum")
		g.take()
		if acts := g.log[before:]; !has(acts, Disconnect, "s") || drops(acts, "s") != want {
			t.Fatalf("mismatch %d: dropped %t, want %t", i+1, drops(acts, "s"), want)
		}
		n = g.up("s")
		if got := g.sent("s"); len(got) != 1 || got[0] != 1 {
			t.Fatalf("replayed %v, want 1", got)
		}
	}
	g.wantOpen(op)
}

func TestChecksumMismatchesFarApartDoNotDrop(t *testing.T) { // R21: twice in a row
	g := newRig(t, "s")
	for range 5 {
		n := g.up("s")
		op := g.write(0)
		g.local(op, nil)
		g.c.Refused(g.now, "s", n, true, "checksum")
		n = g.up("s")
		g.ack("s", n, g.last("s"))
		g.wantDone(op)
		g.down("s", n)
	}
	if drops(g.log, "s") {
		t.Fatal("dropped for mismatches that were each followed by good entries")
	}
}

func TestDroppedMemberKeepsNoMemoryAndStartsOver(t *testing.T) { // R4, R16
	g := newRig(t, "s")
	g.marked = []blockdev.Range{{Len: volSize}}
	n := g.up("s")
	op := g.write(0)
	g.local(op, nil)
	if acts := g.drop("s"); !has(acts, Disconnect, "s") {
		t.Fatal("the stream of a dropped member stays open")
	}
	g.wantDone(op)
	if g.count(Release, op) != 1 {
		t.Fatal("the outbox of a dropped member keeps its entries")
	}
	if acts := g.ack("s", n, 1); len(acts) != 0 {
		t.Fatalf("a dropped member's answer had an effect: %v", acts)
	}
	g.up("s")
	if p := g.c.Peer("s"); p.RemainingBytes != volSize || !p.Resyncing {
		t.Fatalf("%d bytes to compare, want all %d", p.RemainingBytes, volSize)
	}
}

func TestRecordsOfOtherEpochsAndOlderVersionsAreIgnored(t *testing.T) { // R7
	for name, change := range map[string]func(*cluster.Volume){
		"older version": func(v *cluster.Volume) { v.Version-- },
		"same version":  func(*cluster.Volume) {},
		"newer epoch":   func(v *cluster.Volume) { v.Epoch++; v.Version++ },
		"older epoch":   func(v *cluster.Volume) { v.Epoch--; v.Version += 9 },
	} {
		g := newRig(t, "s")
		g.up("s")
		op := g.write(0)
		g.local(op, nil)
		v := g.vol.Clone()
		delete(v.Members, "s")
		change(&v)
		g.c.Set(g.now, v)
		if acts := g.take(); len(acts) != 0 {
			t.Errorf("%s: it had an effect: %v", name, acts)
		}
		g.wantOpen(op)
	}
}

func TestCommandsNameTheEpochAndVersionTheyWereDecidedOn(t *testing.T) { // R7
	g := newRig(t, "s")
	g.write(0)
	for _, a := range g.pass(2 * dropAfter) {
		if a.Kind == Propose && (a.Command.Drop.On != cluster.On{Volume: "v", Epoch: 3, Version: 7} || a.Command.By != "p") {
			t.Fatalf("proposed %+v by %s", a.Command.Drop, a.Command.By)
		}
	}
}

func TestHeldReplicaThatKeepsNothingGetsNoStream(t *testing.T) { // R19
	g := newRig(t)
	g.commit(func(v *cluster.Volume) { v.Held = []string{"s"} })
	before := len(g.log)
	g.up("s")
	if acts := g.log[before:]; has(acts, Begin, "s") || !has(acts, Disconnect, "s") {
		t.Fatal("a replica that a person has to decide on is being overwritten")
	}
	g.commit(func(v *cluster.Volume) { v.Held = nil })
	before = len(g.log)
	g.up("s")
	if !has(g.log[before:], Begin, "s") {
		t.Fatal("a replica that a person released is not resynced")
	}
}

func TestHeldReplicaThatKeepsWhatIsOverwrittenIsResynced(t *testing.T) { // R19
	g := newRig(t)
	g.commit(func(v *cluster.Volume) { v.Held = []string{"s"} })
	g.greet("s", Greeting{Incarnation: bootA, Process: 1, Keeps: true})
	if !has(g.log, Begin, "s") || !g.c.peers["s"].rescued {
		t.Fatal("it is not resynced, or its admission would not say that it was")
	}
}

func TestFlushTravelsInTheStreamAtItsPlace(t *testing.T) { // R20
	g := newRig(t, "s")
	n := g.up("s")
	g.write(0)
	f := g.flush()
	g.write(0)
	var kinds []blockdev.Op
	for _, a := range g.log {
		if a.Kind == Send {
			kinds = append(kinds, a.Op.Kind)
		}
	}
	if len(kinds) != 3 || kinds[1] != blockdev.OpFlush {
		t.Fatalf("sent %v, want the flush between the writes", kinds)
	}
	g.local(f, nil)
	g.ack("s", n, 1)
	g.wantOpen(f)
	g.ack("s", n, 2)
	g.wantDone(f)
}

// A member that says that it stops is dropped as soon as a write would wait for it, and not before: what it owes
// nothing of it can come back to.
func TestMemberThatStopsIsDroppedWhenAWriteWaitsForIt(t *testing.T) { // R4
	g := newRig(t, "s")
	n := g.up("s")
	op := g.write(0)
	g.local(op, nil)
	before := len(g.log)
	g.c.Leaving(g.now, "s", n)
	g.take()
	if acts := g.log[before:]; !drops(acts, "s") || !has(acts, Disconnect, "s") {
		t.Fatal("the write goes on waiting for a member that stops")
	}
	g.wantOpen(op)
}

func TestMemberThatStopsAndOwesNothingStaysUntilTheNextWrite(t *testing.T) { // R4
	g := newRig(t, "s")
	n := g.up("s")
	before := len(g.log)
	g.c.Leaving(g.now, "s", n)
	g.c.Tick(g.now)
	g.take()
	if drops(g.log[before:], "s") {
		t.Fatal("a member that owes nothing is dropped at once")
	}
	op := g.write(0)
	g.local(op, nil)
	if !drops(g.log[before:], "s") {
		t.Fatal("the write waits for a member that stopped")
	}
	g.wantOpen(op)
}

func TestMemberThatIsBackAfterAStopIsNotDropped(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	g.c.Leaving(g.now, "s", n)
	g.take()
	before := len(g.log)
	n = g.up("s")
	op := g.write(0)
	g.local(op, nil)
	g.ack("s", n, 1)
	g.wantDone(op)
	if drops(g.log[before:], "s") {
		t.Fatal("it is dropped although it answers")
	}
}

func TestChangedDropAfterCountsForWhatIsUnanswered(t *testing.T) {
	g := newRig(t, "s")
	g.up("s")
	g.local(g.write(0), nil)
	g.c.SetDropAfter(3 * dropAfter)
	if acts := g.pass(2 * dropAfter); drops(acts, "s") {
		t.Fatal("dropped by the shorter time of before")
	}
	g.c.SetDropAfter(dropAfter)
	if acts := g.pass(time.Millisecond); !drops(acts, "s") {
		t.Fatal("not dropped by the shorter time of now")
	}
}

// The word that a process stops may come late: its successor is a member by then, and connects. Nobody is dropped for it.
func TestLateWordOfAProcessThatHasASuccessorDropsNobody(t *testing.T) {
	for _, late := range []bool{true, false} {
		g := newRig(t, "s")
		n := g.up("s")
		rejoin := func() {
			g.commit(func(v *cluster.Volume) { v.Members["s"] = cluster.Member{Incarnation: bootA, Process: 2} })
		}
		if late {
			rejoin()
			g.local(g.write(0), nil)
			g.c.Leaving(g.now, "s", n)
		} else {
			g.c.Leaving(g.now, "s", n)
			rejoin()
			g.local(g.write(0), nil)
		}
		if acts := append(g.take(), g.pass(dropAfter/2)...); drops(g.log, "s") || drops(acts, "s") {
			t.Errorf("late %t: dropped", late)
		}
		again := g.greet("s", Greeting{Incarnation: bootA, Process: 2})
		g.ack("s", again, 1)
		if last := g.log[len(g.log)-1]; last.Kind != Release {
			t.Errorf("late %t: the write does not end with it: %+v", late, last)
		}
		g.c.Leaving(g.now, "s", again) // of this one it counts
		if g.write(8192); !drops(g.take(), "s") && !drops(g.log, "s") {
			t.Errorf("late %t: a writer waits for a process that stopped", late)
		}
	}
}

// A primary that neither the member nor the leader answers is the one that is cut off, perhaps in one direction only: what
// it proposes would still arrive, and leave nobody to succeed it. Who has not said when it heard the leader is not held to it.
func TestPrimaryThatDoesNotHearTheLeaderDropsNobody(t *testing.T) { // R4, R6
	g := newRig(t, "s")
	g.up("s")
	g.c.Heard(g.now, g.now)
	g.local(g.write(0), nil)
	if acts := g.pass(3 * dropAfter); drops(acts, "s") {
		t.Fatal("it takes away its successor")
	}
	g.c.Heard(g.now, g.now.Add(-dropAfter*6/10))
	if acts := g.pass(dropAfter / 10); drops(acts, "s") {
		t.Fatal("it has not heard the leader for more than half of the time, and takes away its successor")
	}
	g.c.Heard(g.now, g.now.Add(-dropAfter/4))
	if acts := g.pass(dropAfter / 10); !drops(acts, "s") {
		t.Error("the leader answers, and the member is not dropped")
	}
}

// A leader far away answers late, each time: the drop's time is no measure of how far. It is heard all the same, and writes do
// not wait for ever for a member that is gone.
func TestPrimaryWhoseLeaderIsFarAwayDropsWhoIsGone(t *testing.T) { // R4
	g := newRig(t, "s")
	g.up("s")
	const far, every = dropAfter * 7 / 10, dropAfter * 4 / 10
	begun := g.now
	g.local(g.write(0), nil)
	for range 40 {
		g.c.Heard(g.now, begun.Add(max(g.now.Sub(begun)-far, 0)/every*every))
		if acts := g.pass(dropAfter / 10); drops(acts, "s") {
			return
		}
	}
	t.Error("it took each answer for the last one, and its clients wait for ever")
}

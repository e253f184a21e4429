package primary

import (
	"slices"
	"testing"

	"hacluster/heartbeat/cluster"
)

// record applies a changed record of the volume.
func (g *rig) record(change func(v *cluster.Volume)) []Action {
	g.vol = g.vol.Clone()
	change(&g.vol)
	g.vol.Version++
	g.c.Set(g.now, g.vol)
	return g.take()
}

func kinds(acts []Action, node string) (all []ActionKind) {
	for _, a := range acts {
		if a.Node == node {
			all = append(all, a.Kind)
		}
	}
	return all
}

// R5: one that comes in the middle of writes is nobody's member: nothing waits for it, and all of it is to be compared.
func TestReplicaThatComesIsNotWaitedForAndLacksEverything(t *testing.T) {
	g := newRig(t, "s")
	s := g.up("s")
	op := g.write(0)
	acts := g.record(func(v *cluster.Volume) {
		v.Replicas = append(v.Replicas, cluster.Replica{Node: "y", Number: 4, Added: true})
	})
	if got := kinds(acts, "y"); !slices.Equal(got, []ActionKind{Join}) {
		t.Fatalf("asked for %v, want a connection", got)
	}
	g.local(op, nil)
	g.ack("s", s, 1)
	if !op.complete {
		t.Error("a write waits for who is no member")
	}
	g.greet("y", Greeting{Incarnation: bootA.Of(4), Process: 1})
	p := g.c.Peer("y")
	if p.Member || !p.Connected || p.RemainingBytes != volSize {
		t.Errorf("%+v, want all %d bytes to be compared", p, volSize)
	}
}

// R4: a member that is to leave is waited for until the entry that drops it.
func TestReplicaThatLeavesIsWaitedForUntilItIsDropped(t *testing.T) {
	g := newRig(t, "s", "x")
	s, _ := g.up("s"), g.up("x")
	acts := g.record(func(v *cluster.Volume) { v.Replicas[2].Leaving = true })
	if !slices.ContainsFunc(acts, func(a Action) bool { return a.Kind == Propose && a.Command.Drop != nil && a.Command.Drop.Node == "x" }) {
		t.Fatalf("its drop is not proposed: %v", acts)
	}
	op := g.write(0)
	g.local(op, nil)
	g.ack("s", s, 1)
	if op.complete {
		t.Fatal("a write is complete that a member lacks")
	}
	acts = g.record(func(v *cluster.Volume) { delete(v.Members, "x"); v.Replicas = v.Replicas[:2] })
	if !op.complete {
		t.Error("a write waits for who is no member any more")
	}
	if got := kinds(acts, "x"); !slices.Contains(got, Disconnect) || !slices.Contains(got, Part) || slices.Contains(g.c.Peers(), "x") {
		t.Errorf("asked for %v, peers %v", got, g.c.Peers())
	}
	n := g.c.NextStream("x") // of before, or of a node that does not know yet
	g.c.Up(g.now, "x", n, Greeting{Incarnation: bootA, Process: 1})
	if got := kinds(g.take(), "x"); !slices.Equal(got, []ActionKind{Disconnect}) {
		t.Errorf("who holds no replica is greeted with %v", got)
	}
}

// R25: a node that is added again has another replica, also where its removal was never seen.
func TestReplicaThatIsAddedAgainIsAnother(t *testing.T) {
	for _, seen := range []bool{true, false} {
		g := newRig(t, "s", "x")
		g.up("s")
		old := g.up("x")
		gone := func(v *cluster.Volume) { delete(v.Members, "x"); v.Replicas = v.Replicas[:2] }
		if seen {
			g.record(gone)
		}
		acts := g.record(func(v *cluster.Volume) {
			gone(v)
			v.Replicas = append(slices.Clip(v.Replicas), cluster.Replica{Node: "x", Number: 4, Added: true})
		})
		if got := kinds(acts, "x"); !slices.Contains(got, Join) {
			t.Fatalf("removal seen %t: asked for %v", seen, got)
		}
		g.ack("x", old, 0)
		if p := g.c.Peer("x"); p.Connected || p.Member {
			t.Errorf("removal seen %t: the stream of before counts: %+v", seen, p)
		}
		g.silent = true
		n := len(g.log)
		g.up("x") // the one of before runs still
		if p := g.c.Peer("x"); p.Connected || !slices.Equal(kinds(g.log[n:], "x"), []ActionKind{Disconnect}) {
			t.Errorf("removal seen %t: an earlier replica is taken for the later one: %+v", seen, p)
		}
		g.greet("x", Greeting{Incarnation: bootA.Of(4), Process: 1})
		if p := g.c.Peer("x"); p.RemainingBytes != volSize {
			t.Errorf("removal seen %t: %d bytes are to be compared, want %d", seen, p.RemainingBytes, volSize)
		}
	}
}

// The last other copy is not sent away for one that has nothing yet: it goes when that is a member, or when it does not answer.
func TestLastOtherCopyStaysUntilAnotherIsAMember(t *testing.T) {
	for _, silent := range []bool{false, true} {
		g := newRig(t, "s")
		s := g.up("s")
		acts := g.record(func(v *cluster.Volume) {
			v.Replicas[1].Leaving = true
			v.Replicas = append(v.Replicas[:2:2], cluster.Replica{Node: "y", Number: 9, Added: true})
		})
		if drops(acts, "s") || drops(g.pass(g.c.cfg.Retry*2), "s") {
			t.Fatal("the drop of the only other copy is proposed")
		}
		op := g.write(0)
		g.local(op, nil)
		g.wantOpen(op)
		if silent {
			if !drops(g.pass(2*g.c.cfg.DropAfter), "s") {
				t.Error("who leaves and does not answer is waited for")
			}
			continue
		}
		g.ack("s", s, 1)
		g.wantDone(op)
		acts = g.record(func(v *cluster.Volume) { v.Members["y"] = cluster.Member{Incarnation: bootA.Of(9), Process: 1} })
		if !drops(acts, "s") {
			t.Errorf("its drop is not proposed when another is a member: %v", acts)
		}
	}
}

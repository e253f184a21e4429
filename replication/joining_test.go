package replication

import (
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/marks"
	"hacluster/heartbeat/cluster"
)

func (l *lab) changeReplicas(add []cluster.AddReplica, leave ...string) {
	l.t.Helper()
	l.mustOn(func(on cluster.On) cluster.Command {
		l.mu.Lock()
		version := l.state.ConfigVersion
		l.mu.Unlock()
		return cluster.Command{Configure: &cluster.Configure{Version: version, RTOMillis: 1000, Config: []byte("x"),
			Replicas: []cluster.ChangeReplicas{{Name: "v", ID: l.volume().ID, Epoch: on.Epoch, Version: on.Version, Add: add, Leave: leave}}}}
	})
}

// renewed is the node with nothing of its replica left, as of one that is added.
func (n *labNode) renewed() {
	n.mem = memdev.New(memdev.Config{Size: n.l.conf.size})
	n.sb, n.table = &superRecord{inconsistent: true}, nil
}

// A replica leaves while its primary serves, is dropped by an entry, and gone from the maps of the others; added again it is another one,
// which gets everything and is marked for before it is a member's equal (R4, R5, R14). The primary's tenure goes on.
func TestReplicaLeavesAndIsAddedWhileItsVolumeIsServed(t *testing.T) {
	l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b", "c")
	a, b, x := l.nodes["a"], l.nodes["b"], l.nodes["c"]
	tenure := a.serving()
	c := tenure.client(t)
	a.connected("b")
	a.connected("c")
	s := &three{returning: returning{lab: l, a: a, c: c, rng: rand.New(rand.NewPCG(1, 2))}}
	s.write(50, 0, 8<<20)
	l.changeReplicas(nil, "c")
	l.await("it to be gone", func() bool { return l.volume().NumberOf("c") == 0 })
	l.await("its slot to be given up", func() bool {
		for _, n := range []*labNode{a, b} {
			if _, ok := n.marks.Lookup(marks.Peer{Name: "c"}); ok {
				return false
			}
		}
		return true
	})
	s.write(50, 8<<20, 16<<20) // nobody waits for it
	if err := x.halt(); err != nil {
		t.Fatal(err)
	}
	x.renewed()
	l.changeReplicas([]cluster.AddReplica{{Node: "c", Device: "/dev/c2"}})
	x.start()
	s.write(50, 0, 16<<20)
	l.await("it to be a member", func() bool { return l.volume().IsMember("c") })
	if a.get().Tenure() != tenure {
		t.Error("the primary's tenure ended for it")
	}
	peer := marks.Peer{Name: "c", Replica: 4}
	l.await("it to have slots", func() bool {
		for _, n := range []*labNode{a, b} {
			if _, ok := n.get().roster.Load().slots["c"]; !ok {
				return false
			}
		}
		return true
	})
	s.write(50, 16<<20, 20<<20)
	for _, n := range []*labNode{a, b} {
		i, ok := n.marks.Lookup(peer)
		if !ok {
			t.Fatalf("%s keeps nothing of number 4: %+v", n.name, n.marks.Slots())
		}
		if n.marks.Hot() == 0 && !n.marks.Slots()[i].Everything {
			t.Errorf("%s has nothing marked after writes", n.name)
		}
	}
	if b := a.get().roster.Load().bits("c"); b != 1<<3 {
		t.Errorf("it is bit %b in clearings", b)
	}
	s.flush()
	l.same("a", "b")
	l.same("a", "c")
}

// faults.md D92: a map that failed when a replica came gives it its slot when it is written anew.
func TestReplicaThatCameWhileTheMapFailedGetsItsSlot(t *testing.T) {
	l := newLab(t, labConfig{inline: true, size: marksVolume}, "a", "b", "c")
	a := l.nodes["a"]
	l.nodes["b"].cable.cut()
	l.nodes["c"].cable.cut()
	l.form("a")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	a.serving()
	l.changeReplicas(nil, "c")
	l.await("its slot to be given up", func() bool { _, ok := a.marks.Lookup(marks.Peer{Name: "c"}); return !ok })
	bad := a.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Err: errFault})
	l.changeReplicas([]cluster.AddReplica{{Node: "c", Device: "/dev/c2"}})
	l.await("the map to fail", func() bool { return a.marks.Failed() != nil })
	has := func() bool { _, ok := a.get().roster.Load().slots["c"]; return ok }
	if has() {
		t.Error("it has a slot that is on no disk")
	}
	bad.Remove()
	l.awaitPassing("it to have a slot", refreshPause, func() bool { a.grant(); return has() })
}

// A replica may leave between the promotion of its primary and the beginning of its tenure.
func TestLinkThatWasPartedDoesNotBegin(t *testing.T) {
	p := &peerLink{t: &Tenure{life: t.Context()}, node: "b", parted: true}
	if p.beginLocked(); p.stop != nil {
		t.Error("it makes streams")
	}
}

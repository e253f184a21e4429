package sim

import (
	"slices"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// Replicas come and go. A machine that holds none any more sets aside what it had, as soon as its log shows it and is not older than
// its process; one that is added again begins with a new superblock, and with whatever lies on its disk.

// addReplica is a person's word that a machine without a replica is to hold one.
func (w *world) addReplica() {
	v := w.truth.state.Volumes[volumeName]
	var free []*node
	for _, n := range w.data() {
		if _, has := v.Replica(n.name); !has {
			free = append(free, n)
		}
	}
	if len(free) > 0 {
		n := free[w.rng.IntN(len(free))]
		w.changeReplicas(cluster.ChangeReplicas{Add: []cluster.AddReplica{{Node: n.name, Device: "/dev/x"}}})
	}
}

// removeReplica is a person's word that a machine is to hold none any more. A primary hands over first.
func (w *world) removeReplica() {
	n := w.anyData()
	if w.truth.state.Volumes[volumeName].Primary == n.name {
		w.order(failover.Order{To: w.standby(n).name})
		return
	}
	w.changeReplicas(cluster.ChangeReplicas{Leave: []string{n.name}})
}

func (w *world) changeReplicas(m cluster.ChangeReplicas) {
	w.changing = true
	v := w.truth.state.Volumes[volumeName]
	m.Name, m.ID, m.Epoch, m.Version = volumeName, v.ID, v.Epoch, v.Version
	w.tell(cluster.Command{By: "person", Configure: &cluster.Configure{Version: w.truth.state.ConfigVersion, Fencing: w.truth.state.Fencing, Config: []byte("x"), RTOMillis: max(1, w.truth.state.RTOMillis),
		Replicas: []cluster.ChangeReplicas{m}}})
}

// allReplicas adds those that were removed: in the end the volume is whole on every machine.
func (w *world) allReplicas() {
	if w.changing {
		w.run(w.now+int64(4*lease), nil) // what is on its way from a person is there by then
	}
	start := w.now
	for at := start; ; {
		v := w.truth.state.Volumes[volumeName]
		if len(v.Replicas) == len(w.data()) && !v.HasLeaving() {
			return
		}
		if at >= start+int64(healWithin) {
			w.violate("the volume does not get all its replicas: %s, %+v", w.describe(), v.Replicas)
		}
		at += int64(lease)
		w.run(at, nil)
		w.person(start)
		if v = w.truth.state.Volumes[volumeName]; v.Leaves(v.Primary) {
			for _, n := range v.MemberNames() {
				if !v.Leaves(n) {
					w.order(failover.Order{To: n})
				}
			}
		}
		w.addReplica()
	}
}

// replicasMoved checks one change of the record: numbers are given once, who leaves is no member and holds nothing that others lack, and
// whoever is a member has a replica.
func (w *world) replicasMoved(before, after *cluster.Volume) {
	for n := range after.Members {
		if _, ok := after.Replica(n); !ok {
			w.violate("R4: %s is a member and has no replica: %+v", n, after.Replicas)
		}
	}
	for i := range after.Replicas {
		n := after.Replicas[i].Node
		number := after.NumberOf(n)
		for _, r := range after.Replicas[:i] {
			if cluster.NumberBit(after.NumberOf(r.Node)) == cluster.NumberBit(number) {
				w.violate("R14: the replicas of %s and %s have one bit: %+v", r.Node, n, after.Replicas)
			}
		}
		if before.NumberOf(n) == number {
			continue
		}
		if slices.Contains(w.numbers, number) {
			w.violate("R14: number %d is given to %s, and was another replica's: maps may carry bits of that", number, n)
		}
		if w.numbers = append(w.numbers, number); before.Size > 0 {
			w.counts.Joined++
			if after.IsMember(n) {
				w.violate("R5: the replica of %s is new and a member", n)
			}
		}
	}
	for _, r := range before.Replicas {
		if _, ok := after.Replica(r.Node); ok {
			continue
		}
		w.counts.Parted++
		if after.Primary == r.Node || after.IsHeld(r.Node) {
			w.violate("R19: the replica of %s is gone, which is primary, or held: %+v", r.Node, before)
		}
	}
}

// mine reports whether the node's superblock is that of its replica by the record.
func (r *replica) mine() bool {
	_, has := r.vol.Replica(r.n.name)
	return has && r.vol.Stamp(r.n.name) == r.n.super.number
}

// follows takes up that the node's replica was removed, or is another by now. False: there is nothing that takes part in anything.
func (r *replica) follows() bool {
	if r.vol.Size == 0 || r.mine() {
		return true
	}
	if r.p.state.Nodes[r.n.name].Start != r.p.number {
		return false // the log may be old
	}
	if s := r.sess; s != nil {
		s.end("the replica was removed")
		r.sess = nil
	}
	if r.open != nil {
		r.open.close()
	}
	r.recv.Close(^uint64(0))
	if _, has := r.vol.Replica(r.n.name); has && !r.resizing {
		r.renew()
	}
	return false
}

// renew begins with a new superblock, when nothing of the old replica is on its way to the disk any more.
func (r *replica) renew() {
	if r.busy > 0 || r.recv.Outstanding() > 0 || r.super.busy || r.noting > 0 || r.clearing || r.marking || len(r.taken) > 0 || r.storing > r.n.super.epoch {
		return // who ends calls again, and each tick
	}
	r.resizing = true
	r.closeArea()
	v, stamp := r.vol, r.vol.Stamp(r.n.name)
	r.store(func(s *super) {
		*s = super{size: v.Size, resized: v.Resized, used: true, inconsistent: true, number: stamp}
		r.n.undo = undoPlace{w: r.w}
		r.n.kept, r.n.keptSince, r.n.hold, r.n.point = nil, 0, hold{}, interrupted{}
	}, r.reopened)
}

// Package role decides what one replica of a volume has to do next to follow the committed state: stop serving, store
// an epoch, take the role of primary, confirm its membership. It is pure and level-triggered: Next looks at facts and
// names what is missing; calling it again with the same facts gives the same answer.
//
//	promoted, this process --> older work ended --> epoch stored --> in async: flushed --> lease --> old primary removed --> Serve
//	the replica failed since its report, others are members --> GiveUp
//	anything else while serving --> Stop: clients are cut off without an answer
//
// A hand-over is no change of role by itself: the process that gave the volume up lacks the lease, and either the next
// epoch stops it or a grant asked for afterwards lets it go on where it was (R30).
//
// A size belongs to an epoch: a replica that was opened with another one does nothing in that epoch. Its owner closes it and
// opens it anew, and that one begins.
//
// A process that is named by no promotion never serves: a new process of the primary does not continue its epoch (R2).
package role

import (
	"cmp"
	"fmt"

	"hacluster/heartbeat/cluster"
)

// Facts is all that Next looks at.
type Facts struct {
	Self    string
	Volume  cluster.Volume // as applied here, or newer by the leader's word
	Report  cluster.Report // of the replica of this process: incarnation, process, stored epoch, health
	Lease   bool           // a grant names this volume in Volume.Epoch and is valid now
	Serving cluster.Epoch  // the epoch in which this process serves; 0: it does not
	Size    int64          // with which the replica was opened
	Busy    int            // operations on the device that were taken in an older epoch than Volume.Epoch
	Durable cluster.Epoch  // the newest epoch for which all that was taken in older ones was made durable
}

// Action is one of Stop, StoreEpoch, Flush, Serve, Propose, GiveUp.
type Action any

// Actions.
type (
	// Stop ends serving: close the clients' connections without an answer, let what is on the device end.
	Stop struct{ Why string }
	// StoreEpoch puts the epoch on stable storage.
	StoreEpoch struct{ Epoch cluster.Epoch }
	// Flush makes durable what was taken in epochs older than this one. It counts as an operation on the device until it has ended.
	Flush struct{ Epoch cluster.Epoch }
	// Propose hands a command to the leader; repeat it until the state has moved.
	Propose struct{ Command cluster.Command }
	// GiveUp hands the role on without having served: the replica failed after its report, and another member may have
	// what it lost (R23). Tell the leader that the disk failed; repeat it until the state has moved.
	GiveUp struct {
		Epoch cluster.Epoch
		Why   string
	}
	// Serve begins to serve in the epoch.
	Serve struct{ Epoch cluster.Epoch }
)

// Next is what to do now, nil when nothing or when something has to happen first.
func Next(f Facts) Action {
	v := &f.Volume
	if f.Serving != 0 && (f.Serving != v.Epoch || !mine(f)) {
		return Stop{Why: fmt.Sprintf("epoch %d belongs to %s", v.Epoch, v.Primary)}
	}
	if f.Size != v.Size {
		return nil // the epoch has another size: the replica is closed, and opened anew with that, before it acts in it
	}
	if f.Serving != 0 || v.Epoch == 0 || f.Report.Epoch > v.Epoch {
		return nil // a record older than the epoch that we stored is not acted upon
	}
	if mine(f) && !f.Report.Usable() && (len(v.Members) > 1 || v.IsProcess(f.Self)) {
		if !f.Lease {
			return nil
		}
		// Alone, and in semisync, what failed may be what only it was to have: a person decides, whose word is acted upon when no lease
		// is in force any more.
		return GiveUp{Epoch: v.Epoch, Why: "the replica failed before it could serve"}
	}
	if f.Report.Epoch < v.Epoch {
		if f.Busy > 0 || f.Report.Stalled || !f.Report.Held {
			return nil // before the epoch is ours, all that was taken in older ones has ended on the device (R2)
		}
		return StoreEpoch{Epoch: v.Epoch}
	}
	if mine(f) {
		return activate(f)
	}
	return confirm(f)
}

// mine reports whether the promotion named exactly this process and incarnation (R6).
func mine(f Facts) bool {
	m, ok := f.Volume.Members[f.Self]
	return ok && f.Volume.Primary == f.Self && f.Volume.Process == f.Report.Process &&
		m.Process == f.Report.Process && m.Incarnation == f.Report.Incarnation
}

// activate is the way from a promotion to serving: nothing is answered before the old primary has left the set by a
// second entry (R6), which only a holder of the lease may propose (R4).
func activate(f Facts) Action {
	v := &f.Volume
	switch {
	case f.Busy > 0:
		return nil
	case v.HasAsync() && (v.Lags(f.Self) || v.Served == f.Self) && f.Durable < v.Epoch && f.Report.Usable():
		// To one in async the last primary acknowledged flushes by its own disk alone, and the bound counts what is not written here. So what is
		// written becomes durable before it counts as what there is, or a loss of power would take more than the bound. A
		// replica that is not usable, and was promoted by force, is made durable where it is made whole (Serve). One that is not in
		// async has made durable what was acknowledged as that.
		return Flush{Epoch: v.Epoch}
	case !f.Lease:
		return nil
	}
	if !v.Acts() {
		d := &cluster.Drop{On: on(v), Node: cmp.Or(v.Previous, v.Served), Reason: "its epoch ended"}
		return Propose{Command: cluster.Command{By: f.Self, Drop: d}}
	}
	return Serve{Epoch: v.Epoch}
}

// confirm has a new process of a member say that it is one: the same incarnation, a clean stop, or nothing that was
// unflushed at its start (R25).
func confirm(f Facts) Action {
	v := &f.Volume
	m, ok := v.Members[f.Self]
	if !ok || v.Primary == f.Self || m.Process == f.Report.Process || !f.Report.Usable() {
		return nil
	}
	if !v.MayRejoin(f.Self, &f.Report) {
		return nil // the primary drops it, or the next promotion does
	}
	r := &cluster.Rejoin{On: on(v), Node: f.Self, Clean: f.Report.Clean, Unmarked: f.Report.Unmarked,
		Member: cluster.Member{Incarnation: f.Report.Incarnation, Process: f.Report.Process}}
	return Propose{Command: cluster.Command{By: f.Self, Rejoin: r}}
}

func on(v *cluster.Volume) cluster.On {
	return cluster.On{Volume: v.Name, Epoch: v.Epoch, Version: v.Version}
}

// MayAnswer reports whether the replica may answer a primary's Hello: a member whose new process is not confirmed yet
// waits, so that the set always names who acknowledges.
func MayAnswer(f Facts) bool { _, pending := confirm(f).(Propose); return !pending }

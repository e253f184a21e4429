package sim

import (
	"hacluster/heartbeat/cluster"
)

// changeMode is an operator's word that the volume is to have another mode, also when the last such word is not carried out yet.
func (w *world) changeMode() {
	v := w.truth.state.Volumes[volumeName]
	all := []string{cluster.ModeSync, cluster.ModeSemisync, cluster.ModeAsync}
	to := all[w.rng.IntN(len(all))]
	own := w.drawModes(to)
	if v.WillHave(to, own) {
		return
	}
	w.tell(cluster.Command{By: "person", Configure: &cluster.Configure{Version: w.truth.state.ConfigVersion, Fencing: w.truth.state.Fencing, Config: []byte("x"), RTOMillis: max(1, w.truth.state.RTOMillis),
		Modes: []cluster.ChangeMode{{Name: volumeName, ID: v.ID, Epoch: v.Epoch, Version: v.Version, Mode: to, Replicas: own}}}})
}

// drawModes gives replicas modes of their own, where there are more than two: else it is as if both had the weaker one.
func (w *world) drawModes(mode string) map[string]string {
	own := map[string]string{}
	if w.shape.replicas > 2 && w.rng.IntN(3) > 0 {
		for _, n := range w.data() {
			if m := []string{cluster.ModeSync, cluster.ModeSemisync, cluster.ModeAsync}[w.rng.IntN(3)]; m != mode && w.rng.IntN(2) == 0 {
				own[n.name] = m
			}
		}
	}
	return own
}

// changesModes has the volume change its mode in this run: writers are to feel the bound.
func (w *world) changesModes() {
	if w.bound.Bytes == 0 {
		w.bound = w.drawBound()
	}
}

// modeAtLast waits until what was decided is in force.
func (w *world) modeAtLast() {
	for range 20 {
		if w.truth.state.Volumes[volumeName].NextMode == "" {
			return
		}
		w.run(w.now+int64(2*lease), nil)
		w.becomeWhole()
	}
	w.violate("the volume has its old mode for ever: %s", w.describe())
}

// moded checks one change of the record: within its epoch the volume gets the mode that was decided, by its primary's word, when every
// member has what was told and acknowledged in the old one, and durably what was flushed (R5, R13).
func (w *world) moded(c *cluster.Command, before, after *cluster.Volume) {
	if before.NextMode != "" && after.NextMode != before.NextMode && c.SetMode == nil && c.Configure == nil {
		w.violate("the change to mode %s is lost with %s", before.NextMode, describe(c))
	}
	if after.ModesText() == before.ModesText() || before.Mode == "" || len(after.Replicas) != len(before.Replicas) {
		return
	}
	w.counts.Modes++
	if c.SetMode == nil || c.By != after.Primary || after.Epoch != before.Epoch || after.Mode != before.NextMode {
		w.violate("mode %s becomes %s, decided was %q, by %s", before.Mode, after.Mode, before.NextMode, describe(c))
	}
	w.oracle.modeSet(before, after)
}

func (o *oracle) modeSet(before, after *cluster.Volume) {
	if o.served != after.Epoch || o.forced || o.lostMemory {
		return // nothing was acknowledged in this epoch, and what was before is judged when it begins
	}
	// One that is in async before and after may lack what it might have lacked without the change.
	stays := func(n *node) bool {
		return before.ModeBetween(after.Primary, n.name) == cluster.ModeAsync && after.ModeBetween(after.Primary, n.name) == cluster.ModeAsync
	}
	if before.HasAsync() {
		for _, t := range o.line.told {
			for b := t.from; b < min(t.to, o.size()); b++ {
				o.hasAll(b, t.value, after.Mode, stays)
			}
		}
	}
	for b := range o.size() {
		o.hasAll(b, o.acked[b], after.Mode, stays)
		o.members(func(n *node) {
			if sound(n) && n.disk.durable[b] < o.floor[b] && !stays(n) {
				o.w.violate("R20: mode %s is in force, write %d of block %d was flushed, and member %s has %d on stable storage", after.Mode, o.floor[b], b, n.name, n.disk.durable[b])
			}
		})
	}
	if before.HasAsync() && after.HasAsync() {
		o.line.changed = true
		return
	}
	o.line = line{}
	if !after.HasAsync() {
		return
	}
	o.line = line{whole: map[string]bool{after.Primary: true}, epoch: after.Epoch, size: o.size(), must: o.acked, since: after.Version}
	for b := range o.size() {
		least, any := value(0), false
		o.members(func(n *node) {
			if v := n.disk.cache[b]; !any || v < least {
				least, any = v, true
			}
		})
		o.line.start[b] = least
	}
}

func sound(n *node) bool {
	return !n.super.failed && (n.proc == nil || n.proc.replica == nil || !n.proc.replica.failed)
}

// hasAll: a member has what was acknowledged of a block, or newer, when the mode is in force; in semisync in memory.
func (o *oracle) hasAll(b int, v value, mode string, but func(*node) bool) {
	o.holders(b, func(n *node, has value) {
		if has < v && sound(n) && !but(n) {
			o.w.violate("R13: mode %s is in force, write %d of block %d was acknowledged before, and member %s holds %d", mode, v, b, n.name, has)
		}
	})
}

package cluster

// A member is one incarnation of a replica, for a write that was acknowledged may be in the memory of its kernel only. In
// semisync it may be in the memory of its process only, and in async a process that ended between writes that it made beside
// each other left no prefix of their order: there a standby is one process, and of another one only a mark of a clean stop tells
// that nothing was lost with it (R25). Who served has written all that was acknowledged; who was promoted serves by an entry of
// its own, when nothing that it took is unwritten (Served).

// ahead reports whether more may be acknowledged than every member has written.
func (v *Volume) ahead() bool { return v.has(ModeSemisync) || v.has(ModeAsync) }

// IsProcess reports whether node's membership is of its process.
func (v *Volume) IsProcess(node string) bool {
	return v.ahead() && v.Primary != "" && node != v.Served && v.ModeBetween(v.Served, node) != ModeSync
}

// Acts reports whether the primary has been let act by the entry that follows its promotion: the last one is removed, and in
// semisync and async nothing is unwritten of what the new one took from it (R6).
func (v *Volume) Acts() bool { return v.Previous == "" && !v.IsProcess(v.Primary) }

// ServedLast reports whether node was let act as primary last, where that is noted.
func (v *Volume) ServedLast(node string) bool { return v.ahead() && node == v.Served }

// noteServed notes that the primary serves if nothing else is to be decided before it does: beside who served last it was in sync.
func (v *Volume) noteServed() {
	if v.ahead() && v.Acts() {
		v.Served = v.Primary
	}
}

// MayLead reports whether a usable replica may be promoted by what it has in memory: it has written all up to taken, which it
// had taken when it was asked first after the last primary's lease had ended. So a queue that its disk never gets through takes the
// role from nobody who may come back.
func (v *Volume) MayLead(node string, r *Report, taken uint64) bool {
	return !v.IsProcess(node) || r.LastSeq >= taken
}

// Unchanged reports whether the replica is still the member that the set names.
func (v *Volume) Unchanged(node string, r *Report) bool {
	m := v.Members[node]
	return r.Incarnation == m.Incarnation && (r.Process == m.Process || !v.IsProcess(node))
}

// Kept reports whether a replica that is not the member any more says that nothing was lost with it.
func (v *Volume) Kept(node string, r *Report) bool {
	m := v.Members[node]
	return r.Clean.Matches(m) || r.Unmarked.Matches(m) && !v.IsProcess(node)
}

// MayRejoin reports whether a new process of a member goes on as that. In async not one of a standby, also after a clean stop: it is
// sent again what it had not been heard to have, the older first, and would be no prefix of anything meanwhile.
func (v *Volume) MayRejoin(node string, r *Report) bool {
	return v.Unchanged(node, r) || v.Kept(node, r) && !(v.Lags(node) && v.IsProcess(node))
}

// LostMemory reports whether the replica's own word is that what the member had in memory is gone.
func (v *Volume) LostMemory(node string, r *Report) bool {
	m := v.Members[node]
	return r.LostKernel(m) || v.IsProcess(node) && r.Process != m.Process
}

package failover

import "hacluster/heartbeat/cluster"

// pickAsync is R6 and R25 in async, where only who served last has all that was acknowledged.
//
// In this order: after a hand-over, for which all members had written all, the one that was named, or another; who served last, if
// its memory or a clean-stop mark says that it lost nothing; of the others that are unchanged and have written what they took the one
// with the longest prefix of the order; another by its clean-stop mark; who served last, with nothing unflushed or when all lost their
// memory. Nobody else: what a standby lacks without its memory is in no bound (cluster/async.go). One that stopped in order does not
// know in its next process how long its prefix was, which is within the bound all the same: so it comes behind those that do. Where one at
// another site has the longest, nobody follows without a person (site.go).
//
// All are waited for a little (hadTime): who served, so that a process that was killed and is back, or one that only the leader did
// not hear, costs no writes; the others, so that the longest is among those that are heard. One that is heard under its old process and
// does not ask for its lease in another one's time is not waited for any longer: it will not serve.
func (l *Leader) pickAsync(now Instant, v *cluster.Volume, a *account, reports map[string]cluster.Report, waited bool) *cluster.Promote {
	last, all := v.Served, len(reports) == len(v.Members)
	names := l.candidates(v, a, reports)
	next := nextUnchanged(v, reports, names)
	given := a.released == givenUp && !a.failed && a.proven
	if given && !waited && (awaitsNamed(v, a, reports) || next == "" && (!all || writes(v, a, reports))) {
		return nil // it was given up for one that follows in a moment
	}
	apart := false
	if !given {
		next = longest(reports, next, names, v)
		apart = l.longerByWord(v, a, reports, next)
	}
	silent := l.doesNotAsk(v, a, reports)
	if silent && !waited {
		return nil
	}
	if next != "" && (given || silent && !apart) {
		return l.promotionAsync(now, v, a, reports, next, cluster.BasisUnchanged)
	}
	for _, n := range names {
		r := reports[n]
		switch m := v.Members[n]; {
		case n != last:
		case v.Unchanged(n, &r):
			return l.promotionAsync(now, v, a, reports, n, cluster.BasisUnchanged)
		case r.Clean.Matches(m):
			return l.promotionAsync(now, v, a, reports, n, cluster.BasisClean)
		}
	}
	if !l.hadTime(now, a, reports) && (!a.failed && lacksLast(v, reports) || lacksLonger(v, a, reports)) {
		return nil
	}
	if apart {
		return nil
	}
	if next != "" {
		return l.promotionAsync(now, v, a, reports, next, cluster.BasisUnchanged)
	}
	if !all && !waited {
		return nil
	}
	for _, n := range names {
		if r := reports[n]; r.Clean.Matches(v.Members[n]) {
			return l.promotionAsync(now, v, a, reports, n, cluster.BasisClean)
		}
	}
	return l.pickLost(now, v, a, reports, all)
}

// pickLost: everybody was heard, and nobody is the member that it was.
func (l *Leader) pickLost(now Instant, v *cluster.Volume, a *account, reports map[string]cluster.Report, all bool) *cluster.Promote {
	last, heard := reports[v.Served]
	if !all || !heard || l.byWord(v, a, v.Served) || !last.Usable() || a.failed && v.Served == v.Primary {
		return nil // an unchanged member may live: its return, or a person, decides
	}
	if last.Unmarked.Matches(v.Members[v.Served]) {
		return l.promotionAsync(now, v, a, reports, v.Served, cluster.BasisUnmarked)
	}
	for n, r := range reports {
		if !r.LostKernel(v.Members[n]) {
			return nil
		}
	}
	return l.promotionAsync(now, v, a, reports, v.Served, cluster.BasisLastPrimary)
}

// nextUnchanged is the first candidate that is still the member which the set names, and did not serve last.
func nextUnchanged(v *cluster.Volume, reports map[string]cluster.Report, names []string) string {
	for _, n := range names {
		if r := reports[n]; v.Lags(n) && v.Unchanged(n, &r) {
			return n
		}
	}
	return ""
}

// longest is the member with the longest prefix of the primary's order among those that nextUnchanged chooses from, next or another
// (R6). Places are of an epoch: in an older one every member had all when the newer began.
func longest(reports map[string]cluster.Report, next string, names []string, v *cluster.Volume) string {
	for _, n := range names {
		r, best := reports[n], reports[next]
		if v.Lags(n) && v.Unchanged(n, &r) && (r.Epoch > best.Epoch || r.Epoch == best.Epoch && r.Place > best.Place) {
			next = n
		}
	}
	return next
}

// hadTime reports whether all members had their time to be heard: a quarter of a lease from when one was heard first, which was asked
// at the same moment. That is part of the sum of the timers (protocol.md, section 5).
func (l *Leader) hadTime(now Instant, a *account, reports map[string]cluster.Report) bool {
	if a.first == 0 && len(reports) > 0 {
		a.first = now
	}
	return a.first != 0 && now.Sub(a.first) >= l.cfg.Lease/4
}

// lacksLast reports whether who served last is a member and was not heard.
func lacksLast(v *cluster.Volume, reports map[string]cluster.Report) bool {
	_, heard := reports[v.Served]
	return !heard && v.IsMember(v.Served)
}

// lacksLonger reports whether another member than who served may have a longer prefix than those that may be promoted now: it was not
// heard, or has yet to write what it took.
func lacksLonger(v *cluster.Volume, a *account, reports map[string]cluster.Report) bool {
	for n := range v.Members {
		r, heard := reports[n]
		if v.Lags(n) && (!heard || r.Usable() && v.Unchanged(n, &r) && !v.MayLead(n, &r, a.tookFirst(n, &r))) {
			return true
		}
	}
	return false
}

// doesNotAsk reports whether who served was heard, could go on, and does not ask to. One that gave the volume up, not surely as its
// last word, may have been granted it once more by an earlier leader if it asks on, and then has more than it had given up.
func (l *Leader) doesNotAsk(v *cluster.Volume, a *account, reports map[string]cluster.Report) bool {
	r, heard := reports[v.Primary]
	if !heard || v.Primary != v.Served || r.Process != v.Process || !r.Usable() || a.failed {
		return false
	}
	asked, gave := l.accepted[v.Primary], a.gaveUp[v.Primary]
	return a.released == "" || a.released == givenUp && !a.proven && asked.older(gave)
}

// promotionAsync makes the promotion of n, with which all others leave but the last primary, and who served if that one never did:
// they stay promotable until the new one acts (R6), unless the last primary failed or their own word is that they lost their
// memory. After a hand-over all stay.
func (l *Leader) promotionAsync(now Instant, v *cluster.Volume, a *account, reports map[string]cluster.Report, n string, basis cluster.Basis) *cluster.Promote {
	r := reports[n]
	p := &cluster.Promote{Candidate: n, Member: cluster.Member{Incarnation: r.Incarnation, Process: r.Process}, Basis: basis}
	switch {
	case basis == cluster.BasisClean:
		p.Clean = r.Clean
	case basis == cluster.BasisUnmarked:
		p.Unmarked = r.Unmarked
	case basis == cluster.BasisUnchanged && a.released == givenUp && a.proven && !a.failed && n != v.Primary:
		p.Basis = cluster.BasisHandOver
	}
	if a.lag != nil {
		p.Lag, p.LagAgeMillis = a.lag, now.Sub(a.lagAt).Milliseconds()
	}
	for _, m := range v.MemberNames() {
		o, heard := reports[m]
		lost := heard && v.LostMemory(m, &o) && !v.Kept(m, &o)
		stays := p.Basis == cluster.BasisHandOver || m == v.Primary && !a.failed || m == v.Served && m != v.Primary
		if m != n && (lost || !stays) {
			p.Leave = append(p.Leave, m)
		}
	}
	return p
}

// noteLag keeps what the primary says of what others lack: it was so at the earliest when it was asked, or when its request came.
func (l *Leader) noteLag(at Instant, node string, reports []cluster.Report) {
	for _, rep := range reports {
		v, ok := l.state.Volumes[rep.Volume]
		if !ok || rep.Lag == nil || v.Primary != node || v.Process != rep.Process || v.Epoch != rep.Epoch {
			continue
		}
		if a := l.account(rep.Volume); a.epoch == v.Epoch && at >= a.lagAt {
			a.lag, a.lagAt = rep.Lag, at
		}
	}
}

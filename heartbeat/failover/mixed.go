package failover

import "hacluster/heartbeat/cluster"

// wholeMembers is the volume with those of its members alone that have all that was acknowledged: who served last, and those in sync or
// semisync with it.
func wholeMembers(v *cluster.Volume) *cluster.Volume {
	whole := v.Clone()
	for n := range v.Members {
		if v.Lags(n) {
			delete(whole.Members, n)
		}
	}
	return &whole
}

// pickMixed is R6 and R25 where some members have all that was acknowledged (whole), and others, in async, a prefix within the bound.
//
// Of those that have all, one follows as if there were no others: in async nobody has anything acknowledged that it lacks, and so leaves.
// One in async follows when none of the others can: each of them was heard and cannot be used or lost its memory, or was not heard for a
// lease since the last one had ended. One that is heard and can be used is waited for, however long, also where it is at another site
// and a person is to name it. What all lost alike, those that have all go on with. After a hand-over every member has all, and one in async follows if it was named.
func (l *Leader) pickMixed(now Instant, v, whole *cluster.Volume, a *account, reports map[string]cluster.Report, waited bool) *cluster.Promote {
	some := map[string]cluster.Report{}
	for n := range whole.Members {
		if r, heard := reports[n]; heard {
			some[n] = r
		}
	}
	names := l.candidates(v, a, reports)
	if a.released == givenUp && !a.failed && a.proven && v.Lags(a.handTo) {
		if !waited && awaitsNamed(v, a, reports) {
			return nil
		}
		if r, heard := reports[a.handTo]; heard && len(names) > 0 && names[0] == a.handTo && v.Unchanged(a.handTo, &r) {
			return l.promotionAsync(now, v, a, reports, a.handTo, cluster.BasisUnchanged)
		}
	}
	if p, stays := l.pickAttached(now, whole, a, some); stays {
		return p
	}
	p := l.pickMember(whole, a, some, waited)
	alike := p != nil && (p.Basis == cluster.BasisLastPrimary || p.Basis == cluster.BasisAllLost)
	if p != nil && (!alike || allLost(v, reports)) {
		return p
	}
	if mayFollow(whole, a, some) || len(some) < len(whole.Members) && !waited {
		return nil
	}
	return l.pickLagging(now, v, a, reports, names, waited)
}

// mayFollow reports whether a member that was heard is to follow in a moment: it is waited for.
func mayFollow(whole *cluster.Volume, a *account, reports map[string]cluster.Report) bool {
	for n, r := range reports {
		if r.Usable() && whole.Unchanged(n, &r) && !(n == whole.Primary && a.failed) {
			return true
		}
	}
	return false
}

// allLost reports whether every member was heard, and lost its memory (R25).
func allLost(v *cluster.Volume, reports map[string]cluster.Report) bool {
	for n, m := range v.Members {
		if r, heard := reports[n]; !heard || !r.LostKernel(m) {
			return false
		}
	}
	return true
}

// pickLagging is a member in async, with the longest prefix of those that are heard; nil: none can follow yet.
func (l *Leader) pickLagging(now Instant, v *cluster.Volume, a *account, reports map[string]cluster.Report, names []string, waited bool) *cluster.Promote {
	if !l.hadTime(now, a, reports) && lacksLonger(v, a, reports) {
		return nil
	}
	next, clean := "", ""
	for _, n := range names {
		switch r := reports[n]; {
		case !v.Lags(n):
		case v.Unchanged(n, &r) && next == "":
			next = n
		case clean == "" && r.Clean.Matches(v.Members[n]):
			clean = n
		}
	}
	switch {
	case next != "":
		if next = longest(reports, next, names, v); l.longerByWord(v, a, reports, next) {
			return nil
		}
		return l.promotionAsync(now, v, a, reports, next, cluster.BasisUnchanged)
	case clean != "" && (waited || len(reports) == len(v.Members)):
		return l.promotionAsync(now, v, a, reports, clean, cluster.BasisClean)
	}
	return nil
}

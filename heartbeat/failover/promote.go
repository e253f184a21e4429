package failover

import (
	"slices"
	"time"

	"hacluster/heartbeat/cluster"
)

// Order takes a person's word on a volume: a hand-over, or a forced promotion. It is acted upon by the next
// evaluation and forgotten when the epoch moves.
func (l *Leader) Order(now Instant, volume string, o Order) []Action {
	v, ok := l.state.Volumes[volume]
	if !l.ready || !ok || o.Epoch != 0 && o.Epoch != v.Epoch {
		return nil
	}
	l.orders[volume] = o
	a := l.account(volume)
	if !o.Force && v.Primary != "" && a.released == "" && now < a.until {
		if o.To == v.Primary {
			delete(l.orders, volume) // it is there already
			return nil
		}
		return append([]Action{HandOver{Volume: volume, Primary: v.Primary, To: o.To, Epoch: v.Epoch}}, l.evaluate(now)...)
	}
	return l.evaluate(now)
}

// Cancel forgets a person's order.
func (l *Leader) Cancel(volume string) { delete(l.orders, volume) }

// ended reports whether no lease on the volume can be in force any more (R10), and why.
func (l *Leader) ended(now Instant, v *cluster.Volume, a *account) (string, bool) {
	switch {
	case v.Primary == "":
		return "first start", true
	case a.released == replaced, a.released == givenUp && a.proven:
		return a.released, true
	case now.Sub(l.since) < l.withDrift(l.longest):
		// An earlier leader may have granted until just before our term, also to a request made after a give-up that it
		// never heard of.
		return "", false
	case a.released == givenUp:
		return givenUp, true
	case l.runs(now, a):
		return "", false
	}
	return LeaseExpired, true
}

// runs reports whether the last grant may be in force at its holder, as far as time tells.
func (l *Leader) runs(now Instant, a *account) bool {
	return now < l.runsUntil(a)
}

func (l *Leader) runsUntil(a *account) Instant {
	if mutatePromoteEarly {
		return a.until.Add(-l.cfg.Lease / 2)
	}
	return a.until
}

// LeaseExpired is why a volume moved whose primary was heard no more until its lease had ended. Nothing else says that a lease has ended.
const LeaseExpired = "lease expired"

// decide looks at one volume: is its primary gone, and who follows?
func (l *Leader) decide(now Instant, v *cluster.Volume) []Action {
	a := l.account(v.Name)
	why, over := l.ended(now, v, a)
	if !over || a.deciding != nil {
		if a.deciding == nil {
			a.ended, a.fence = 0, ""
		}
		return nil
	}
	if a.ended == 0 {
		a.ended, a.after, a.asked, a.took, a.first = now, l.lastNum, 0, nil, 0 // only reports asked for from here on count (R25)
	}
	c := l.choose(now, v, a, why)
	if c == nil {
		a.fence = "" // nobody could follow, or only on a person's word
		l.want(now, v, a)
		return nil
	}
	if p := c.Promote; p != nil {
		may, fence := l.mayFollow(now, v, a, p)
		if a.fence = ""; fence {
			a.fence = fenceWhy(v, p)
		}
		if !may {
			l.want(now, v, a)
			return nil
		}
		a.beside = l.fenceBeside(v, p, why)
	}
	a.deciding = &decision{v.Epoch, v.Version}
	c.By = l.cfg.Self
	return []Action{Propose{Command: *c}}
}

// want has the reports asked for again, at most four times a lease; in async twice as often, for what the last primary is given to
// be heard is a quarter of one.
func (l *Leader) want(now Instant, v *cluster.Volume, a *account) {
	every := l.cfg.Lease / 4
	if v.HasAsync() {
		every /= 2
	}
	if a.asked == 0 || now.Sub(a.asked) >= every {
		a.asked = now
		l.round.wanted = true
	}
}

// fresh is the node's report on the volume, if it was asked for after the lease had ended.
func (l *Leader) fresh(v *cluster.Volume, a *account, node string) (cluster.Report, bool) {
	ans := l.reports[node]
	rep, ok := ans.reports[v.Name]
	return rep, ok && v.Is(node, rep.Incarnation) && ans.round > a.after && rep.Process == l.state.Nodes[node].Start
}

func (l *Leader) choose(now Instant, v *cluster.Volume, a *account, why string) *cluster.Command {
	if len(v.Members) == 0 {
		return l.form(v, a)
	}
	if o, ok := l.orders[v.Name]; ok && o.Force {
		if c := l.force(v, a, o.To, why); c != nil {
			return c
		}
	}
	reports := map[string]cluster.Report{}
	for n := range v.Members {
		if r, ok := l.fresh(v, a, n); ok {
			reports[n] = r
		}
	}
	waited := now.Sub(a.ended) >= l.withDrift(l.cfg.Lease)
	// A primary that lost its lease for a moment (a new leader, a busy machine) but answers under its own process
	// asks again at once: taking the volume from it would only cost a failover.
	if r, ok := reports[v.Primary]; ok && r.Process == v.Process && a.released == "" && r.Usable() && !waited {
		return nil
	}
	if o, ok := l.orders[v.Name]; ok {
		a.handTo = o.To
	}
	p := l.pick(now, v, a, reports, waited)
	if p == nil {
		return nil
	}
	if a.released == givenUp && p.Candidate == v.Primary && p.Member.Process == v.Process {
		// Nobody else can follow: the hand-over is void, and the next request gives the volume back (R30).
		a.released, a.handTo, a.gaveTo, a.ended, a.fence = "", "", "", 0, ""
		delete(l.orders, v.Name)
		return nil
	}
	p.On = cluster.On{Volume: v.Name, Epoch: v.Epoch, Version: v.Version}
	p.Term, p.Reason = l.cfg.Term, why
	any, named := l.ordered(v, a, p.Candidate)
	p.Ordered = named || any && !l.state.Nodes[p.Candidate].Drained
	return &cluster.Command{Promote: p}
}

// form gives a new volume its first set: when every replica reports a fresh backing, all of them.
func (l *Leader) form(v *cluster.Volume, a *account) *cluster.Command {
	f := &cluster.Form{On: cluster.On{Volume: v.Name, Epoch: v.Epoch, Version: v.Version}, Members: map[string]cluster.Member{}}
	for _, r := range v.Replicas {
		rep, ok := l.fresh(v, a, r.Node)
		if !ok || !rep.Fresh || !rep.Usable() {
			return nil
		}
		f.Members[r.Node] = cluster.Member{Incarnation: rep.Incarnation, Process: rep.Process}
	}
	return &cluster.Command{Form: f}
}

// force promotes a replica on a person's word, never one that is stalled, or in pieces without a way back. The lease was
// waited for already.
func (l *Leader) force(v *cluster.Volume, a *account, to, why string) *cluster.Command {
	rep, ok := l.fresh(v, a, to)
	healthy := rep.Usable() && !(to == v.Primary && a.failed)
	if !ok || !rep.Promotable() { // it may be all that is left: the person was told
		return nil
	}
	p := &cluster.Promote{On: cluster.On{Volume: v.Name, Epoch: v.Epoch, Version: v.Version}, Term: l.cfg.Term, Candidate: to,
		Member: cluster.Member{Incarnation: rep.Incarnation, Process: rep.Process}, Basis: cluster.BasisForced, Reason: why, Ordered: true}
	if healthy && v.IsMember(to) && v.Unchanged(to, &rep) {
		return nil // no force needed: the ordinary way
	}
	return &cluster.Command{Promote: p}
}

func (l *Leader) pick(now Instant, v *cluster.Volume, a *account, reports map[string]cluster.Report, waited bool) *cluster.Promote {
	if v.HasAsync() && v.Primary != "" {
		whole := wholeMembers(v)
		for n := range whole.Members {
			if n != v.Served {
				return l.pickMixed(now, v, whole, a, reports, waited)
			}
		}
		return l.pickAsync(now, v, a, reports, waited)
	}
	if p, stays := l.pickAttached(now, v, a, reports); stays {
		return p
	}
	return l.pickMember(v, a, reports, waited)
}

// pickAttached: a primary whose process was replaced, and whose node has a device in use that waits for the new one, follows itself
// if it is unchanged: another would cost the users of the device their data's way back, for they get errors. It is given a quarter
// of a lease for its report, and the others for theirs. Not when a person named another.
func (l *Leader) pickAttached(now Instant, v *cluster.Volume, a *account, reports map[string]cluster.Report) (p *cluster.Promote, stays bool) {
	if a.released != replaced || !a.attached || a.handTo != "" {
		return nil, false
	}
	r, heard := reports[v.Primary]
	over := now.Sub(a.ended) >= l.cfg.Lease/4
	switch {
	case !heard:
		return nil, !over
	case !r.Attached || !r.Usable() || !v.Unchanged(v.Primary, &r) || !slices.Contains(l.candidates(v, a, reports), v.Primary):
		return nil, false
	case len(reports) < len(v.Members) && !over:
		return nil, true
	}
	return promotion(v, a, reports, v.Primary, cluster.BasisUnchanged, false), true
}

// pickMember is R6 and R25: which member follows, given the reports that were asked for after the lease had ended.
//
// In this order: an unchanged incarnation other than the last primary's; the last primary itself, unchanged, when no
// other was heard for a lease or none is left; a clean-stop mark; when all were heard, one that had nothing unflushed; the
// last primary, when every member lost its memory; any other, when the last primary cannot be used. A changed one waits
// while an unchanged member may live, however long that takes: a person may know better.
func (l *Leader) pickMember(v *cluster.Volume, a *account, reports map[string]cluster.Report, waited bool) *cluster.Promote {
	names := l.candidates(v, a, reports)
	all := len(reports) == len(v.Members)
	if !waited && awaitsNamed(v, a, reports) {
		return nil
	}
	for _, n := range names {
		r := reports[n]
		if v.Unchanged(n, &r) && n != v.Primary {
			return promotion(v, a, reports, n, cluster.BasisUnchanged, waited)
		}
	}
	if a.released == givenUp && !waited && writes(v, a, reports) {
		return nil // it was given up for one that follows in a moment
	}
	if r, ok := reports[v.Primary]; ok && r.Usable() && !a.failed && v.Unchanged(v.Primary, &r) && (all || waited) {
		return promotion(v, a, reports, v.Primary, cluster.BasisUnchanged, waited)
	}
	if !all && !waited {
		return nil
	}
	for _, n := range names {
		r := reports[n]
		if r.Clean.Matches(v.Members[n]) {
			return promotion(v, a, reports, n, cluster.BasisClean, waited)
		}
	}
	if !all {
		return nil // an unchanged member may live: its return, or a person, decides
	}
	// Not before all were heard: that maps are empty says nothing of a machine that was put back, as a whole, to a moment at
	// which they were. A clean-stop mark would name an older process then.
	for _, n := range names {
		r := reports[n]
		if r.Unmarked.Matches(v.Members[n]) && !v.IsProcess(n) {
			return promotion(v, a, reports, n, cluster.BasisUnmarked, waited)
		}
	}
	if v.Primary == "" && len(names) > 0 {
		return promotion(v, a, reports, names[0], cluster.BasisFirst, waited) // nothing was written yet that memory could lose
	}
	for n, r := range reports {
		if !r.LostKernel(v.Members[n]) {
			return nil // unchanged but unusable, it cannot tell, or only its process ended: a person decides
		}
	}
	last, ok := reports[v.Primary]
	switch {
	case ok && last.Usable():
		return promotion(v, a, reports, v.Primary, cluster.BasisLastPrimary, waited)
	case ok && len(names) > 0:
		// All lost memory alike, so what was flushed is on each of them, and none has more than that for sure.
		return promotion(v, a, reports, names[0], cluster.BasisAllLost, waited)
	}
	return nil
}

// awaitsNamed reports whether the role was given up for a member that was not heard yet, or has yet to write what it took: another
// may be heard first, and is not who was meant.
func awaitsNamed(v *cluster.Volume, a *account, reports map[string]cluster.Report) bool {
	to := a.handTo
	if a.released != givenUp || a.failed || to == v.Primary || !v.IsMember(to) {
		return false
	}
	r, heard := reports[to]
	return !heard || r.Usable() && v.Unchanged(to, &r) && !v.MayLead(to, &r, a.tookFirst(to, &r))
}

// writes reports whether a member that is to follow has yet to write what it took.
func writes(v *cluster.Volume, a *account, reports map[string]cluster.Report) bool {
	for n, r := range reports {
		if n != v.Primary && r.Usable() && v.Unchanged(n, &r) && !v.MayLead(n, &r, a.tookFirst(n, &r)) {
			return true
		}
	}
	return false
}

// candidates are the usable members, the wanted successor first, then in a fixed order, those whose replica is to go last. A primary that gave the
// volume up for its own failed disk is none, and one that only a person promotes (byWord) only on that word.
func (l *Leader) candidates(v *cluster.Volume, a *account, reports map[string]cluster.Report) []string {
	var names []string
	for _, n := range v.MemberNames() {
		if r, ok := reports[n]; ok && r.Usable() && v.MayLead(n, &r, a.tookFirst(n, &r)) && !(n == v.Primary && a.failed) && !l.byWord(v, a, n) {
			names = append(names, n)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		switch la, lb := v.Leaves(a), v.Leaves(b); {
		case la == lb:
			return 0
		case lb:
			return -1
		}
		return 1
	})
	if v.Primary == "" { // a drained one only where there is no other
		if i := slices.IndexFunc(names, func(n string) bool { return !l.state.Nodes[n].Drained }); i > 0 {
			names[0], names[i] = names[i], names[0]
		}
	}
	if i := slices.Index(names, a.handTo); i > 0 {
		names[0], names[i] = names[i], names[0]
	}
	return names
}

// promotion makes the promotion of n and says who leaves in the same entry: the failed old primary, and every other member
// whose own word is that it lost its memory, unless all did alike. The others stay and are settled with (R29), but for one
// that was not heard for a lease: writes would only wait for its drop.
func promotion(v *cluster.Volume, a *account, reports map[string]cluster.Report, n string, basis cluster.Basis, waited bool) *cluster.Promote {
	r := reports[n]
	p := &cluster.Promote{Candidate: n, Member: cluster.Member{Incarnation: r.Incarnation, Process: r.Process}, Basis: basis}
	if basis == cluster.BasisUnmarked {
		p.Unmarked = r.Unmarked
	}
	if basis == cluster.BasisClean {
		p.Clean = r.Clean
	}
	if v.Primary == "" {
		p.Basis = cluster.BasisFirst
	} else if a.released == givenUp && a.proven && basis == cluster.BasisUnchanged && !a.failed && n != v.Primary {
		p.Basis = cluster.BasisHandOver
	}
	alike := basis == cluster.BasisLastPrimary || basis == cluster.BasisAllLost
	for _, m := range v.MemberNames() {
		o, heard := reports[m]
		lost := heard && v.LostMemory(m, &o) && !v.Kept(m, &o)
		switch {
		case m == n:
		case alike && m != v.Primary && o.Usable():
			p.Stay = stay(p.Stay, m, cluster.Member{Incarnation: o.Incarnation, Process: o.Process})
		case lost || m == v.Primary && (a.failed || basis == cluster.BasisAllLost):
			p.Leave = append(p.Leave, m)
		case m != v.Primary && (heard || !waited):
			p.Stay = stay(p.Stay, m, v.Members[m])
		}
	}
	return p
}

func stay(all map[string]cluster.Member, node string, m cluster.Member) map[string]cluster.Member {
	if all == nil {
		all = map[string]cluster.Member{}
	}
	all[node] = m
	return all
}

// Retry forgets the decision on a volume whose command certainly never reached the log, so that it is taken anew.
func (l *Leader) Retry(volume string) { l.account(volume).deciding = nil }

// Stages tells, for a promotion decided at now, how long the old primary had been silent and what the leader waited
// for, for the record of the failover.
func (l *Leader) Stages(now Instant, volume string) (silent, waited time.Duration) {
	a := l.account(volume)
	if a.until != 0 {
		silent = max(now.Sub(a.until)+l.withDrift(l.cfg.Lease), 0)
	}
	return silent, max(now.Sub(a.ended), 0)
}

package cluster

import (
	"fmt"
	"slices"
)

// Apply carries out one committed entry. index and term are the entry's own. It never fails: a command that does not
// fit is void and says why.
func (s *State) Apply(index, term uint64, c Command) Result {
	s.Index = index
	defer s.forgetOld()
	if len(c.Batch) > 0 {
		return s.batch(index, term, c)
	}
	return s.one(index, term, c)
}

func (s *State) one(index, term uint64, c Command) Result {
	void, volume := s.apply(term, c)
	r := Result{Void: void, Index: index}
	if v, ok := s.Volumes[volume]; ok {
		v = v.Clone()
		r.Volume = &v
	}
	return r
}

func (s *State) apply(term uint64, c Command) (void, volume string) {
	switch {
	case c.Init != nil:
		return s.init(c, c.Init), ""
	case s.ID == "":
		return "the cluster has no identity yet", ""
	case c.StartNode != nil:
		return s.startNode(c, c.StartNode), ""
	case c.AddNode != nil:
		return s.addNode(c, *c.AddNode), ""
	case c.SetDrained != nil:
		return s.setDrained(c, c.SetDrained), ""
	case c.SetMaintenance != nil:
		return s.setMaintenance(c, c.SetMaintenance), ""
	case c.FenceNode != nil:
		return s.fenceNode(c, c.FenceNode), ""
	case c.RemoveNode != nil:
		return s.removeNode(c, c.RemoveNode.Node), ""
	case c.CreateVolume != nil:
		return s.createVolume(c, *c.CreateVolume), c.CreateVolume.Name
	case c.Failover != nil:
		return s.recordFailover(*c.Failover), ""
	case c.Configure != nil:
		return s.configure(c, c.Configure), ""
	case c.SettleLeases != nil:
		return s.settleLeases(c.SettleLeases), ""
	case c.Form != nil:
		return s.onOnce(c, c.Form.On, func(v *Volume) string { return s.form(c, v) }), c.Form.Volume
	case c.Promote != nil:
		return s.onOnce(c, c.Promote.On, func(v *Volume) string { return s.promote(term, c, v) }), c.Promote.Volume
	case c.Drop != nil:
		return s.on(c, c.Drop.On, func(v *Volume) string { return s.drop(c, v) }), c.Drop.Volume
	case c.Admit != nil:
		return s.on(c, c.Admit.On, func(v *Volume) string { return s.admit(c, v) }), c.Admit.Volume
	case c.SetMode != nil:
		return s.on(c, c.SetMode.On, func(v *Volume) string { return s.setMode(c, v) }), c.SetMode.Volume
	case c.Rejoin != nil:
		return s.on(c, c.Rejoin.On, func(v *Volume) string { return s.rejoin(c, v) }), c.Rejoin.Volume
	case c.AllowResync != nil:
		return s.on(c, c.AllowResync.On, func(v *Volume) string { return s.allowResync(c, v) }), c.AllowResync.Volume
	case c.PauseResync != nil:
		return s.on(c, c.PauseResync.On, func(v *Volume) string { return s.pauseResync(c, v) }), c.PauseResync.Volume
	case c.FullResync != nil:
		return s.on(c, c.FullResync.On, func(v *Volume) string { return s.fullResync(c, v) }), c.FullResync.Volume
	}
	return "unknown command", ""
}

// on is the compare-and-set of R7: the change sees the volume only if it stands as the command was decided on, and
// raises the version unless it is void.
func (s *State) on(c Command, o On, change func(*Volume) string) string {
	old, ok := s.Volumes[o.Volume]
	if !ok {
		return fmt.Sprintf("volume %q does not exist", o.Volume)
	}
	if old.Epoch != o.Epoch || old.Version != o.Version {
		return fmt.Sprintf("decided on epoch %d version %d, the volume has epoch %d version %d", o.Epoch, o.Version, old.Epoch, old.Version)
	}
	v := old.Clone()
	if void := change(&v); void != "" {
		return void
	}
	v.Version++
	s.depart(c, &v)
	s.Volumes[o.Volume] = v
	return ""
}

// onOnce is on for the leader's own decisions: the version rises although the command is void for another reason than
// the version. The leader that decided it grants nobody the volume until it sees the record move (R10), and would wait
// for ever.
func (s *State) onOnce(c Command, o On, change func(*Volume) string) string {
	void := s.on(c, o, change)
	if v, ok := s.Volumes[o.Volume]; ok && v.Epoch == o.Epoch && v.Version == o.Version {
		v.Version++
		s.Volumes[o.Volume] = v
	}
	return void
}

func (s *State) form(c Command, v *Volume) string {
	f := c.Form
	if v.Epoch != 0 || len(v.Members) != 0 {
		return "the volume has members already"
	}
	if len(f.Members) == 0 {
		return "no member named"
	}
	for n := range f.Members {
		if _, ok := v.Replica(n); !ok {
			return fmt.Sprintf("node %q holds no replica", n)
		}
	}
	v.Members, v.InitialFrom = f.Members, f.InitialFrom
	s.event(c, "volume formed", v, "", fmt.Sprintf("in-sync set %v", v.MemberNames()))
	return ""
}

// promote is R6. What makes a promotion safe is decided by the leader (package failover); here stands what must hold
// whatever the leader thinks.
func (s *State) promote(term uint64, c Command, v *Volume) string {
	p := c.Promote
	if p.Term != term {
		return fmt.Sprintf("the leader waited in term %d, the entry is of term %d", p.Term, term)
	}
	if void := s.mayPromote(p, v); void != "" {
		return void
	}
	old := v.Primary
	v.Epoch++
	v.Primary, v.Process = p.Candidate, p.Member.Process
	if old != p.Candidate || !p.Basis.keepsAll() {
		v.Since = v.Epoch
	}
	s.resizeNow(c, v)
	v.hold(p)
	if p.Basis == BasisForced {
		v.Members = map[string]Member{}
	}
	for _, n := range p.Leave {
		delete(v.Members, n)
	}
	if p.Basis != BasisFirst && p.Basis != BasisHandOver {
		// Writes in flight may have reached one member and not another. Who stays is settled before anything is answered
		// (R29). The old primary stays promotable until the new one has it removed (R6).
		for n := range v.Members {
			if m, stays := p.Stay[n]; stays && n != p.Candidate {
				v.Members[n] = m
			} else if n != p.Candidate && n != old && !v.isBefore(n, p) {
				delete(v.Members, n)
			}
		}
	}
	v.Members[p.Candidate] = p.Member
	v.Previous, v.Full = "", without(v.Full, p.Candidate)
	if old != "" && old != p.Candidate && v.IsMember(old) && p.Basis != BasisHandOver {
		v.Previous = old
	}
	if v.isBefore(v.Served, p) && v.IsMember(v.Served) {
		v.Previous = v.Served
	}
	if v.ahead() && (p.Basis == BasisFirst || p.Basis == BasisHandOver || p.Basis == BasisForced) {
		v.Served = p.Candidate
	}
	v.noteServed()
	if v.Promotions == nil {
		v.Promotions = map[Basis]uint64{}
	}
	v.Promotions[p.Basis]++
	if old != "" {
		s.beganFailover(c, v, old)
	}
	s.event(c, "promoted", v, p.Candidate, fmt.Sprintf("%s is primary of epoch %d (%s; %s); before: %q; in-sync set %v",
		p.Candidate, v.Epoch, p.Basis, p.Reason, old, v.MemberNames()))
	return ""
}

// keepsAll reports whether a node that is promoted again on this basis has all that it had acknowledged: its memory is what it was,
// or it lost nothing with it.
func (b Basis) keepsAll() bool {
	return b == BasisUnchanged || b == BasisHandOver || b == BasisClean || b == BasisUnmarked
}

func (s *State) mayPromote(p *Promote, v *Volume) string {
	if !s.mayHold(v, p.Candidate) {
		return fmt.Sprintf("node %q holds no replica", p.Candidate)
	}
	if !v.Is(p.Candidate, p.Member.Incarnation) {
		return fmt.Sprintf("an earlier replica of %s would be promoted", p.Candidate)
	}
	if n := s.Nodes[p.Candidate]; n.Start != p.Member.Process {
		return fmt.Sprintf("process %d of %s was chosen, process %d runs", p.Member.Process, p.Candidate, n.Start)
	}
	if slices.Contains(p.Leave, p.Candidate) {
		return "the candidate would leave the set"
	}
	if void := s.mayFollow(p, v); void != "" {
		return void
	}
	if void := s.mayReplace(p, v); void != "" {
		return void
	}
	if void := mayStay(p, v); void != "" {
		return void
	}
	m, member := v.Members[p.Candidate]
	switch p.Basis {
	case BasisForced:
		return ""
	case BasisClean:
		if member && p.Clean.Matches(m) {
			return ""
		}
		return fmt.Sprintf("the clean-stop mark of %s is not of the member that the set names", p.Candidate)
	case BasisUnmarked:
		if member && p.Unmarked.Matches(m) && !v.IsProcess(p.Candidate) {
			return ""
		}
		return fmt.Sprintf("the empty maps of %s were not kept by the member that the set names", p.Candidate)
	case BasisLastPrimary:
		if member && p.Candidate == v.whole() {
			return ""
		}
		return fmt.Sprintf("%s is not the last primary", p.Candidate)
	case BasisAllLost:
		if v.Lags(p.Candidate) {
			return "in async the others may lack more than the bound of what was flushed: a person decides"
		}
		if member && p.Candidate != v.Primary && slices.Contains(p.Leave, v.Primary) {
			return ""
		}
		return fmt.Sprintf("%s is no member, or the last primary does not leave", p.Candidate)
	case BasisFirst:
		if member && v.Primary == "" {
			return ""
		}
		return fmt.Sprintf("%s is no member, or the volume was promoted before", p.Candidate)
	case BasisHandOver, BasisUnchanged:
		if member && v.Unchanged(p.Candidate, &Report{Incarnation: p.Member.Incarnation, Process: p.Member.Process}) {
			return ""
		}
		return fmt.Sprintf("%s is no member under the incarnation or process named", p.Candidate)
	}
	return fmt.Sprintf("unknown basis %q", p.Basis)
}

// mayStay: only a member stays, and under another incarnation only one of all that lost their memory (R25). The old primary
// stays of itself.
func mayStay(p *Promote, v *Volume) string {
	for n, stays := range p.Stay {
		m, member := v.Members[n]
		alike := p.Basis == BasisLastPrimary || p.Basis == BasisAllLost
		switch {
		case !member || n == v.Primary || p.Basis == BasisForced || p.Basis != BasisFirst && (v.leavesBehind(p) || v.Lags(n)):
			return fmt.Sprintf("%s is no member that could stay", n)
		case m != stays && !alike:
			return fmt.Sprintf("%s would stay as another than the member that the set names", n)
		}
	}
	return ""
}

// mayHold reports whether node is configured to hold a replica of the volume and is part of the cluster.
func (s *State) mayHold(v *Volume, node string) bool {
	_, replica := v.Replica(node)
	_, known := s.Nodes[node]
	return replica && known
}

func (s *State) drop(c Command, v *Volume) string {
	d := c.Drop
	switch {
	case c.By != v.Primary && c.By != d.Node:
		return fmt.Sprintf("%s is neither the primary nor the replica itself", c.By)
	case d.Node == v.Primary:
		return "the primary does not leave its own set"
	case v.IsMember(d.Node) && len(v.Members) == 1:
		return "the last member does not leave"
	}
	if v.Previous == d.Node {
		v.Previous = ""
	}
	if v.ahead() && c.By == v.Primary {
		v.Served = v.Primary // it proposes when it has the lease, and nothing of an older epoch on its device (role)
	}
	v.noteServed()
	if v.IsMember(d.Node) { // else nothing to do, but the version rises: a late admission is void
		delete(v.Members, d.Node)
		v.Drops++
		s.event(c, "member dropped", v, d.Node, fmt.Sprintf("%s left the in-sync set: %s; it is now %v", d.Node, d.Reason, v.MemberNames()))
	}
	return ""
}

func (s *State) admit(c Command, v *Volume) string {
	a := c.Admit
	switch {
	case c.By != v.Primary || v.Epoch == 0:
		return fmt.Sprintf("%s is not the primary", c.By)
	case v.IsHeld(a.Node) && !a.Rescued:
		return fmt.Sprintf("%s is held: what it has of its own was not kept aside", a.Node)
	}
	if a.Node == v.Primary {
		return "the primary does not admit itself"
	}
	if !s.mayHold(v, a.Node) {
		return fmt.Sprintf("node %q holds no replica", a.Node)
	}
	if !v.Is(a.Node, a.Member.Incarnation) {
		return fmt.Sprintf("an earlier replica of %s would be admitted", a.Node)
	}
	if v.WantsFull(a.Node) && !a.Full {
		return fmt.Sprintf("%s is to be compared as a whole first", a.Node)
	}
	kept := ""
	if v.IsHeld(a.Node) {
		kept = "; what it had of its own before is kept there as a rescue image"
	}
	v.Full, v.Held = without(v.Full, a.Node), without(v.Held, a.Node)
	v.Members[a.Node] = a.Member
	v.Admissions++
	s.event(c, "member admitted", v, a.Node, fmt.Sprintf("%s holds every write; the in-sync set is %v%s", a.Node, v.MemberNames(), kept))
	return ""
}

func (s *State) rejoin(c Command, v *Volume) string {
	r := c.Rejoin
	_, member := v.Members[r.Node]
	switch {
	case c.By != r.Node:
		return fmt.Sprintf("%s speaks for %s", c.By, r.Node)
	case !member:
		return fmt.Sprintf("%s is no member", r.Node)
	case !v.Is(r.Node, r.Member.Incarnation):
		return fmt.Sprintf("an earlier replica of %s would be a member", r.Node)
	case r.Node == v.Primary:
		return "a new process of the primary is promoted anew" // R2
	}
	as := Report{Incarnation: r.Member.Incarnation, Process: r.Member.Process, Clean: r.Clean, Unmarked: r.Unmarked}
	if !v.MayRejoin(r.Node, &as) {
		return fmt.Sprintf("%s is another than the member, and has to be resynced: without a clean-stop mark of that and without empty maps that it kept, or, in async, a standby", r.Node)
	}
	v.Members[r.Node] = r.Member
	return ""
}

func (s *State) allowResync(c Command, v *Volume) string {
	i := slices.Index(v.Held, c.AllowResync.Node)
	if i >= 0 {
		v.Held = slices.Delete(v.Held, i, i+1)
		s.event(c, "resync allowed", v, c.AllowResync.Node, fmt.Sprintf("a person allowed to overwrite the replica of %s", c.AllowResync.Node))
	}
	return ""
}

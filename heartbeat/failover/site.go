package failover

import "hacluster/heartbeat/cluster"

// Sites say which nodes are together, and may be lost, or cut off, together. A volume's role does not leave the site of its primary by
// itself: where the line to a site is down, the applications and people there cannot tell which side is lost, and a standby far
// away may lack more than its operators want to lose. A person, who knows more, names the node (Order).
type Sites struct {
	Of   map[string]string // of a node; those without one are together
	Auto map[string]bool   // volumes whose role goes to another site by itself
}

// SetSites changes them.
func (l *Leader) SetSites(s Sites) { l.sites = s }

// byWord reports whether n is promoted on a person's word only, and there is none: it is at another site than the primary or drained,
// and nobody named it, or there is maintenance, and nobody asked for a failover. Who was primary before and is not settled with is
// none of these, for the present one has not acted (R6).
func (l *Leader) byWord(v *cluster.Volume, a *account, n string) bool {
	if v.Primary == "" || n == v.Primary || n == v.Previous || v.ServedLast(n) {
		return false
	}
	away := !l.sites.Auto[v.Name] && l.sites.Of[n] != l.sites.Of[v.Primary]
	ordered, named := l.ordered(v, a, n)
	switch {
	case named:
		return false
	case away || l.state.Nodes[n].Drained:
		return true
	}
	return l.state.Maintenance && !ordered
}

// ordered reports whether a person asked for a failover, and whether for one to n.
func (l *Leader) ordered(v *cluster.Volume, a *account, n string) (any, named bool) {
	o, any := l.orders[v.Name]
	if a.released == givenUp && a.gaveTo == n { // it was given up for that one, which only a person asks for
		return true, true
	}
	return any, any && o.To == n
}

// longerByWord reports whether a member that only a person promotes has a longer prefix of the order than next. R6 wants the longest
// promoted.
func (l *Leader) longerByWord(v *cluster.Volume, a *account, reports map[string]cluster.Report, next string) bool {
	best := reports[next]
	for n, r := range reports {
		if l.byWord(v, a, n) && r.Usable() && v.Unchanged(n, &r) && (r.Epoch > best.Epoch || r.Epoch == best.Epoch && r.Place > best.Place) {
			return true
		}
	}
	return false
}

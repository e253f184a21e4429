package node

import (
	"fmt"
	"strings"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// A volume's role leaves the site of its primary only on a person's word, unless its site_failover says otherwise; no drained node gets
// it but by name; and while there is maintenance it goes nowhere by itself. The leader decides that (failover/site.go), by the applied
// configuration and the state; what is here tells people.

// followSites has the Leader know the sites of the configuration that this node runs with: the applied one, a moment after it was
// applied. To read it here would keep leases waiting, where it has a thousand volumes.
func (l *leading) followSites() {
	if cfg := l.n.conf(); l.sites != cfg {
		l.sites = cfg
		l.core.SetSites(sitesOf(cfg))
	}
}

func sitesOf(cfg *config.Config) failover.Sites {
	s := failover.Sites{Of: map[string]string{}, Auto: map[string]bool{}}
	for _, n := range cfg.Nodes {
		s.Of[n.Name] = n.Site
	}
	for _, v := range cfg.Mirrors() {
		s.Auto[v.Name] = v.SiteFailover
	}
	return s
}

// byName tells why a replica is promoted only when a person names it: "is at site far", "is drained"; empty: it is not so.
func (v *view) byName(vol *cluster.Volume, node string) (why string) {
	switch {
	case vol.Primary == "" || node == vol.Primary:
		return ""
	case v.state.Nodes[node].Drained:
		return "is drained"
	case v.sites.Auto[vol.Name] || v.sites.Of[node] == v.sites.Of[vol.Primary]:
		return ""
	case v.sites.Of[node] == "":
		return "is at no site"
	}
	return "is at site " + v.sites.Of[node]
}

// byWord is byName, and maintenance, in which any word of a person's does.
func (v *view) byWord(vol *cluster.Volume, node string) (why string) {
	if why = v.byName(vol, node); why == "" && v.state.Maintenance && vol.Primary != "" && node != vol.Primary {
		why = "waits, for there is maintenance"
	}
	return why
}

// onlyBy tells why the role goes to none of the other members by itself, as by says of each; empty: to one it does, or there is none.
func (v *view) onlyBy(vol *cluster.Volume, by func(*cluster.Volume, string) string) string {
	var all []string
	for _, m := range vol.MemberNames() {
		if m == vol.Primary {
			continue
		}
		why := by(vol, m)
		if why == "" {
			return ""
		}
		all = append(all, m+" "+why)
	}
	return strings.Join(all, ", ")
}

// byHand says what a person may do about replicas that could serve and do not by themselves; empty: there are none.
func (v *view) byHand(vol *cluster.Volume) string {
	for _, m := range vol.MemberNames() {
		rep := v.report(m, vol.Name)
		if why := v.byWord(vol, m); why != "" && rep != nil && rep.Usable() && vol.Unchanged(m, rep) {
			return fmt.Sprintf("%s could follow and %s: `ha-admin failover %s --to %s` moves the volume there, and nothing else does", m, why, vol.Name, m)
		}
	}
	return ""
}

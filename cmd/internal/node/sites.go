package node

import (
	"fmt"
	"slices"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// A volume's role leaves the site of its primary only on a person's word, unless its site_failover says otherwise. The leader decides
// that (failover/site.go), by the applied configuration; what is here tells people.

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

// elsewhere is the site of a replica that is promoted on a person's word only, for the primary is at another; ok: it is so.
func (v *view) elsewhere(vol *cluster.Volume, node string) (site string, ok bool) {
	if vol.Primary == "" || v.sites.Auto[vol.Name] || v.sites.Of[node] == v.sites.Of[vol.Primary] {
		return "", false
	}
	if site = v.sites.Of[node]; site == "" {
		site = "none"
	}
	return site, true
}

// onlyElsewhere reports whether all other members are at other sites.
func (v *view) onlyElsewhere(vol *cluster.Volume) bool {
	others := slices.DeleteFunc(vol.MemberNames(), func(m string) bool { return m == vol.Primary })
	return len(others) > 0 && !slices.ContainsFunc(others, func(m string) bool { _, away := v.elsewhere(vol, m); return !away })
}

// byHand says what a person may do about replicas at other sites that could serve; empty: there are none.
func (v *view) byHand(vol *cluster.Volume) string {
	for _, m := range vol.MemberNames() {
		rep := v.report(m, vol.Name)
		if site, away := v.elsewhere(vol, m); away && rep != nil && rep.Usable() && vol.Unchanged(m, rep) {
			return fmt.Sprintf("%s could follow and is at site %s: `ha-admin failover %s --to %s` moves the volume there, and nothing else does", m, site, vol.Name, m)
		}
	}
	return ""
}

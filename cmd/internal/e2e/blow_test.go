package e2e

import (
	"slices"
	"strings"

	"hacluster/cmd/internal/api"
)

// blow is harm done to a data node while both replicas are members, of which the other one goes on.
//
// A machine without time to spare may have the standby dropped between the last look at the set and the harm. Then the node was the only member,
// nobody may be promoted (R6), and what follows is another test. So a blow is struck again, after undo, until the set was whole
// when it fell: no drop of the other replica is on record. Not for ever: if it is dropped each time, the harm does that.
type blow struct {
	what    string
	standby bool   // the node is the standby; default: the primary
	node    string // this one, whatever it is
	strike  func(node string)
	undo    func(node string) // makes the node well again
}

// blowsAtMost is how often a blow is struck before the drops are no chance any more.
const blowsAtMost = 5

// struck is the volume directly before a blow, which then was healthy, and when the other replica serves.
func (r *rig) struck(b blow) (node string, before, after api.VolumeStatus) {
	r.t.Helper()
	for try := 1; ; try++ {
		drops := map[string]int{"alpha": r.drops("alpha", "gamma"), "beta": r.drops("beta", "gamma")}
		before = r.until(b.what+": healthy before", Healthy).Volumes[0]
		switch node = before.Primary; {
		case b.node != "":
			node = b.node
		case b.standby:
			node = other(node)
		}
		heir := other(node)
		b.strike(node)
		after = r.until(b.what+": the other serves", func(s *api.Status) bool { return PrimaryIs(heir)(s) || onlyMember(node)(s) }).Volumes[0]
		if after.Primary == heir && r.drops(heir, heir) == drops[heir] {
			return node, before, after
		}
		if try == blowsAtMost {
			r.t.Fatalf("%s: each of %d times %s was dropped meanwhile: it is not by chance", b.what, try, heir)
		}
		r.t.Logf("%s: %s was dropped meanwhile: once more", b.what, heir)
		b.undo(node)
	}
}

// killed kills the primary, or the standby, of a whole set.
func (r *rig) killed(what string, standby bool) (node string, before, after api.VolumeStatus) {
	r.t.Helper()
	return r.struck(blow{what: what, standby: standby, strike: func(node string) { r.Kill(node) }, undo: func(node string) { r.start(node) }})
}

// drops is how often a replica left the set for not answering or for its disk, as a node remembers it.
func (r *rig) drops(of, node string) (n int) {
	r.t.Helper()
	for _, text := range r.happened(node, "member dropped") {
		if strings.HasPrefix(text, of+" left the in-sync set") {
			n++
		}
	}
	return n
}

// onlyMember is a condition for until: nobody else may be promoted.
func onlyMember(node string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && slices.Equal(s.Volumes[0].InSync, []string{node})
	}
}

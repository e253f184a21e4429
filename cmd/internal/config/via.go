package config

import "fmt"

// ways refuses what no stream could go by: a replica that is not there, and a way of more than one step; and what writers wait for.
func (r *report) ways(v Volume) {
	for _, rep := range v.Replicas {
		if rep.Via == "" {
			continue
		}
		by, ok := v.Replica(rep.Via)
		switch {
		case rep.Via == rep.Node:
			r.add(rep.viaAt, "via itself", "the node of another replica of the volume is wanted, which carries on what is sent to this one")
		case !ok:
			r.add(rep.viaAt, "via a node without a replica", fmt.Sprintf("%s has no replica of the volume: the node of one is wanted, which carries on what is sent to this one", rep.Via))
		case by.Via != "":
			r.add(rep.viaAt, "via a replica with a via", fmt.Sprintf("%s is sent what it gets via %s: one that the primary sends to directly is wanted", rep.Via, by.Via))
		case v.ModeOf(rep) != ModeAsync:
			r.add(rep.viaAt, "via in mode "+string(v.ModeOf(rep)), "mode async is wanted for a replica with a via: writers would wait for two nodes, and for the time that it takes to notice that the one in between is gone")
		}
	}
}

// Ways are by way of which other replica's node each replica is sent what a primary writes, by their nodes; nil: all directly.
func (v Volume) Ways() map[string]string {
	var by map[string]string
	for _, r := range v.Replicas {
		if r.Via != "" {
			if by == nil {
				by = map[string]string{}
			}
			by[r.Node] = r.Via
		}
	}
	return by
}

// orDirectly shows a way.
func orDirectly(via string) string {
	if via == "" {
		return "directly"
	}
	return via
}

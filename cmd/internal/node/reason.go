package node

import (
	"fmt"
	"slices"
	"strings"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// reason tells an operator why a volume is not healthy, and what to do where a person has to act.
func (v *view) reason(vol *cluster.Volume, s *api.VolumeStatus) string {
	switch {
	case s.State == api.VolumeHealthy:
		return ""
	case !v.quorum:
		return "no quorum: too few voters answer for anybody to serve; start the other nodes"
	case s.State == api.VolumeUnavailable && len(vol.Members) == 0:
		return v.notFormed(vol)
	case s.State == api.VolumeUnavailable && v.unfenced(vol) != "":
		return v.unfenced(vol)
	case s.State == api.VolumeUnavailable:
		return v.notServed(vol)
	case s.State == api.VolumeSuspended && v.diskFailed(vol):
		return v.failedAndAlone(vol)
	case s.State == api.VolumeSuspended:
		return fmt.Sprintf("%s has no lease at this moment: it resumes with the next", vol.Primary)
	}
	var bad []string
	for _, r := range s.Replicas {
		switch {
		case r.State == api.ReplicaInSync:
		case r.State == api.ReplicaResyncing && r.Reason != "":
			bad = append(bad, r.Node+" is "+r.State+": "+r.Reason)
		default:
			bad = append(bad, r.Node+" is "+r.State)
		}
	}
	return strings.Join(bad, ", ")
}

// notFormed: a volume that never had members waits for its replicas, or for a person's word on their content.
func (v *view) notFormed(vol *cluster.Volume) string {
	var why []string
	content := false
	for _, c := range vol.Replicas {
		rep := v.report(c.Node, vol.Name)
		switch {
		case rep == nil || !rep.Usable():
			why = append(why, fmt.Sprintf("the replica on %s cannot be used: %s", c.Node, problemOf(rep)))
		case !rep.Fresh:
			content = true
			why = append(why, fmt.Sprintf("the replica on %s holds data", c.Node))
		}
	}
	if content {
		why = append(why, fmt.Sprintf("say whose is kept with `ha-admin volume create %s --initial-from NODE`, or --discard-data", vol.Name))
	}
	if len(why) == 0 {
		return "its first in-sync set is being formed"
	}
	return strings.Join(why, "; ")
}

// notServed: nobody serves a volume that has members.
func (v *view) notServed(vol *cluster.Volume) string {
	var why []string
	for _, m := range vol.MemberNames() {
		rep := v.report(m, vol.Name)
		switch {
		case rep == nil:
			why = append(why, m+" does not answer")
		case rep.Doing != "" && m == vol.Primary:
			why = append(why, m+": "+rep.Doing)
		case !rep.Usable():
			why = append(why, fmt.Sprintf("the replica on %s cannot be used: %s", m, problemOf(rep)))
		case vol.LostMemory(m, rep) && !vol.Kept(m, rep):
			why = append(why, lostText(vol, m, rep))
		case vol.IsProcess(m) && rep.LastSeq < rep.Taken:
			why = append(why, fmt.Sprintf("%s follows when its disk has written what it received (%d of %d entries are)", m, rep.LastSeq, rep.Taken))
		}
	}
	if text := v.byHand(vol); text != "" {
		return strings.Join(append(why, text), "; ")
	}
	if len(why) == 0 {
		return "a primary is being chosen"
	}
	return fmt.Sprintf("only %s may serve: %s%s", strings.Join(vol.MemberNames(), ", "), strings.Join(why, "; "), v.advice(vol))
}

// lostText says how a member lost its memory.
func lostText(vol *cluster.Volume, node string, rep *cluster.Report) string {
	switch {
	case rep.Incarnation != vol.Members[node].Incarnation:
	case vol.Lags(node):
		return node + " is a new process, and the last one may have ended between writes that it made beside each other, or before writes that it had in memory (mode async), so writes are at risk beyond the bound"
	default:
		return node + " is a new process, so writes that the last one had in memory (mode semisync) are at risk"
	}
	return node + " restarted with its machine, so writes since its last flush are at risk"
}

func (v *view) diskFailed(vol *cluster.Volume) bool {
	rep := v.report(vol.Primary, vol.Name)
	return rep != nil && rep.Failed
}

// failedAndAlone: the primary gave the role up for its failed disk, and no other member took it: each of them has every
// acknowledged write, so they are waited for (R23).
func (v *view) failedAndAlone(vol *cluster.Volume) string {
	var why []string
	for _, m := range vol.MemberNames() {
		rep := v.report(m, vol.Name)
		switch {
		case m == vol.Primary:
		case rep == nil:
			why = append(why, m+" does not answer: start it")
		case !rep.Usable():
			why = append(why, fmt.Sprintf("the replica on %s cannot be used: %s", m, problemOf(rep)))
		}
	}
	if len(why) == 0 {
		return fmt.Sprintf("the disk of %s failed and it gave the role up: a primary is being chosen", vol.Primary)
	}
	return fmt.Sprintf("the disk of %s failed and it gave the role up, but no other member can take it: %s; if that is for good, `ha-admin failover %s --to %s --force --accept-data-loss` goes on with the failed disk, after writing all of it again",
		vol.Primary, strings.Join(why, "; "), vol.Name, vol.Primary)
}

// advice names what a person can do where nobody is promoted without one: wait for those who are away, or go on with
// what is there. Empty where the leader will find a primary by itself (package failover).
func (v *view) advice(vol *cluster.Volume) string {
	away, lost := 0, 0
	for _, m := range vol.MemberNames() {
		rep := v.report(m, vol.Name)
		switch {
		case rep == nil:
			away++
		case rep.Usable() && (!vol.LostMemory(m, rep) || vol.Kept(m, rep)), rep.Doing != "":
			return ""
		case rep.LostKernel(vol.Members[m]):
			lost++
		}
	}
	last := v.report(vol.Primary, vol.Name)
	if lost == len(vol.Members) && last != nil && (last.Usable() || v.anyUsable(vol)) {
		return ""
	}
	to := v.lastResort(vol)
	switch {
	case to == "" && away > 0:
		return "; start those that do not answer"
	case to == "":
		return "; repair one of them and restart its haclusterd"
	}
	force := fmt.Sprintf("`ha-admin failover %s --to %s --force --accept-data-loss` goes on with what %s has, after it has said what may be lost", vol.Name, to, to)
	if away > 0 {
		return "; start those that do not answer; if they never return, " + force
	}
	return "; " + force
}

func (v *view) anyUsable(vol *cluster.Volume) bool {
	return slices.ContainsFunc(vol.MemberNames(), func(m string) bool {
		rep := v.report(m, vol.Name)
		return rep != nil && rep.Usable()
	})
}

// lastResort is the replica that a person can have promoted by force: a member before others, the last primary before
// other members, a sound disk before one that failed.
func (v *view) lastResort(vol *cluster.Volume) (best string) {
	rank := 0
	for _, c := range vol.Replicas {
		rep := v.report(c.Node, vol.Name)
		if rep == nil || !rep.Promotable() || rep.Epoch == 0 {
			continue
		}
		at := 1
		for bit, is := range []bool{c.Node == vol.Primary, vol.IsMember(c.Node), !rep.Failed && vol.IsMember(c.Node)} {
			if is {
				at += 2 << bit
			}
		}
		if at > rank {
			best, rank = c.Node, at
		}
	}
	return best
}

func replicaReason(vol *cluster.Volume, node, state string, rep *cluster.Report, peer *control.Peer) string {
	switch {
	case vol.Leaves(node):
		return leavesFor(vol, node)
	case peer != nil && peer.Blocked != "":
		return peer.Blocked
	case state == api.ReplicaInSync || state == api.ReplicaResyncing:
		return ""
	case rep == nil && vol.IsHeld(node):
		return "the node does not answer; it may hold acknowledged writes that the others lack: when it is back, its resync keeps what it overwrites as a rescue image"
	case rep == nil:
		return "the node does not answer"
	case rep.Problem != "":
		return rep.Problem
	case rep.Stalled:
		return "an operation of its backing device is outstanding past its deadline"
	case vol.IsHeld(node) && rep.Doing != "":
		return rep.Doing
	case vol.IsHeld(node) && !vol.IsPaused(node):
		return "it may hold acknowledged writes that the others lack: its resync begins when the primary serves, and keeps what it overwrites as a rescue image"
	case vol.IsPaused(node) && peer != nil && peer.Connected:
		return fmt.Sprintf("an operator paused its resync: `ha-admin volume resume %s --replica %s` goes on with it", vol.Name, node)
	case rep.Doing != "":
		return rep.Doing
	case rep.Failed:
		return "a write or flush of its backing device failed: it is resynced when the device works"
	case peer != nil && peer.Reason != "":
		return peer.Reason
	case len(vol.Members) == 0:
		return "the volume was never in use"
	case state == api.ReplicaInconsistent:
		return "a resync has begun to overwrite it and has not ended, and there is no way back: it never held the volume's data, or there was no room for an undo area; until the resync ends it cannot be promoted, also not by force"
	case rep.Point != nil:
		return "a resync has overwritten a part of it and waits to go on; promoted by force, it returns to its last consistent point"
	}
	return "it waits for a resync from the primary"
}

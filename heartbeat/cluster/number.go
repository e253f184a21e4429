package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// Each replica of a volume has a number for as long as it is one: clearings name replicas by it, and a replica's superblock and the maps
// that others keep of it bear it, so that what was known of one is never taken for something about another of the same node. Numbers
// begin with 1. Those of the replicas that a volume was created with are their places in its record, and are not written down before
// a replica comes or goes. Others are counted on: a number is never given again (LastNumber).

// NumberOf is the number of node's replica; 0: it has none.
func (v *Volume) NumberOf(node string) uint32 {
	for i, r := range v.Replicas {
		if r.Node == node {
			return v.numberAt(i)
		}
	}
	return 0
}

func (v *Volume) numberAt(i int) uint32 {
	if n := v.Replicas[i].Number; n > 0 {
		return n
	}
	return uint32(i + 1)
}

// Stamp is what the superblock of node's replica, and the slots that others keep of it, bear of its number: 0 when the volume was created
// with it, as programs that knew no numbers wrote.
func (v *Volume) Stamp(node string) uint32 {
	if r, ok := v.Replica(node); ok && r.Added {
		return r.Number
	}
	return 0
}

// writeNumbers writes the numbers down, before the places change.
func (v *Volume) writeNumbers() {
	if v.LastNumber > 0 {
		return
	}
	for i := range v.Replicas {
		v.Replicas[i].Number = uint32(i + 1)
	}
	v.LastNumber = uint32(len(v.Replicas))
}

// nextNumber is one that no replica had, and whose bit none of the present ones has.
func (v *Volume) nextNumber() uint32 {
	n := v.LastNumber + 1
	for slices.ContainsFunc(v.Replicas, func(r Replica) bool { return NumberBit(r.Number) == NumberBit(n) }) {
		n++
	}
	return n
}

// Of is the incarnation of the replica that bears the stamp. An earlier one of the same node, which runs still because its process has
// not learned yet that it was removed, has another incarnation, though boot and device are the same: it is never taken for the later one
// (R25).
func (i Incarnation) Of(stamp uint32) Incarnation {
	if stamp > 0 {
		i.Attachment += ofReplica + fmt.Sprint(stamp)
	}
	return i
}

const ofReplica = " as replica "

// Is reports whether an incarnation is one of node's present replica. Of one whose backing cannot be opened that is not known, and it
// takes part in nothing.
func (v *Volume) Is(node string, i Incarnation) bool {
	if i.Attachment == "" {
		return true
	}
	if stamp := v.Stamp(node); stamp > 0 {
		return strings.HasSuffix(i.Attachment, ofReplica+fmt.Sprint(stamp))
	}
	return !strings.Contains(i.Attachment, ofReplica)
}

// numberBits is how many bits a clearing has for replicas.
const numberBits = 32

// NumberBit stands for a replica among the present ones of its volume. Of those no two have the same (nextNumber).
func NumberBit(number uint32) uint32 { return 1 << ((number - 1) % numberBits) }

// renumbered reports whether an older program would take numbers for places, or a replica that leaves for one that stays.
func (s *State) renumbered() bool {
	for _, v := range s.Volumes {
		if v.LastNumber > 0 {
			return true
		}
	}
	return false
}

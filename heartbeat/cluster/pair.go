package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// A replica may have a mode of its own, stronger or weaker than the volume's: a standby that is near in sync, one that is far away in
// async. What counts is the mode between the primary and each other: the weaker one of the two replicas' modes. So a far one makes
// nobody wait, also when it is the primary itself.
//
// Of the members those in sync and semisync with who served have all that was acknowledged: any of them may follow, and settles with
// the others of them. Those in async have a prefix within the bound: they follow only when none of the others can, and leave at each
// failover (async.go). A volume of which all replicas have one mode is as it was before there were others.

// ModeOf is the mode in force of node's replica.
func (v *Volume) ModeOf(node string) string {
	if r, ok := v.Replica(node); ok && r.Mode != "" {
		return r.Mode
	}
	return v.Mode
}

// ModeToBeOf is the mode that node's replica has when all that is decided is in force.
func (v *Volume) ModeToBeOf(node string) string {
	switch r, ok := v.Replica(node); {
	case v.NextMode == "":
		return v.ModeOf(node)
	case ok && r.NextMode != "":
		return r.NextMode
	}
	return v.NextMode
}

// ModeBetween is the mode in force between two replicas, of which one is the primary.
func (v *Volume) ModeBetween(a, b string) string { return weaker(v.ModeOf(a), v.ModeOf(b)) }

// modeToBeBetween is the one when all that is decided is in force.
func (v *Volume) modeToBeBetween(a, b string) string { return weaker(v.ModeToBeOf(a), v.ModeToBeOf(b)) }

// AckMode is the mode by which a primary acknowledges towards another replica: while modes are being changed, the stronger of both.
func (v *Volume) AckMode(primary, node string) string {
	return stronger(v.ModeBetween(primary, node), v.modeToBeBetween(primary, node))
}

// Fences reports whether a standby must not begin what follows a flush or durable write before that is durable: a client may be
// told of the flush before (R13). While the mode changes to async, its standbys are to be in order when it is in force.
func (v *Volume) Fences(primary, node string) bool {
	return v.ModeBetween(primary, node) == ModeAsync || v.modeToBeBetween(primary, node) == ModeAsync
}

// HasAsync reports whether some replica may lack what clients were told of.
func (v *Volume) HasAsync() bool { return v.has(ModeAsync) }

func (v *Volume) has(mode string) bool {
	for _, r := range v.Replicas {
		if v.ModeOf(r.Node) == mode {
			return true
		}
	}
	return len(v.Replicas) == 0 && v.Mode == mode
}

// Lags reports whether node, as a member beside who served, may lack what clients were told of.
func (v *Volume) Lags(node string) bool {
	return node != v.Served && v.ModeBetween(v.Served, node) == ModeAsync
}

// isMixed reports whether some replica may lack what clients were told of, and another, beside who served, may not.
func (v *Volume) isMixed() bool {
	return v.HasAsync() && slices.ContainsFunc(v.Replicas, func(r Replica) bool { return r.Node != v.Served && !v.Lags(r.Node) })
}

// ModesText is the mode, and which replicas have another.
func (v *Volume) ModesText() string {
	return modesText(v.Mode, v.Replicas, func(r Replica) string { return v.ModeOf(r.Node) })
}

// ModesToBeText is ModesText when all that is decided is in force.
func (v *Volume) ModesToBeText() string {
	mode := v.Mode
	if v.NextMode != "" {
		mode = v.NextMode
	}
	return modesText(mode, v.Replicas, func(r Replica) string { return v.ModeToBeOf(r.Node) })
}

func modesText(mode string, all []Replica, of func(Replica) string) string {
	var others []string
	for _, r := range all {
		if m := of(r); m != mode {
			others = append(others, fmt.Sprintf("%s %s", r.Node, m))
		}
	}
	if len(others) == 0 {
		return mode
	}
	return fmt.Sprintf("%s (%s)", mode, strings.Join(others, ", "))
}

func weaker(a, b string) string {
	if strength[b] < strength[a] {
		return b
	}
	return a
}

func stronger(a, b string) string {
	if strength[b] > strength[a] {
		return b
	}
	return a
}

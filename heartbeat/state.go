// Package heartbeat answers one question: are the peers alive? A peer is reached over several links; there is one
// verdict on it, and one state for each link.
//
// The package is pure: it is told what happened and what time it is (Detector.Step) and returns what changed. It
// performs no I/O, starts no goroutine and reads no clock; package membership drives it. Its verdict is a hint that
// makes decisions sooner. It never decides anything by itself: leases and Raft do.
package heartbeat

import (
	"fmt"
	"slices"
	"time"
)

// State is the verdict on a peer.
type State uint8

// The verdicts.
const (
	// Unknown: not heard since this node started, and too soon to say more.
	Unknown State = iota
	// Alive: heard directly a moment ago, or others hear it.
	Alive
	// Suspect: silent for longer than usual.
	Suspect
	// Dead: silent for so long, or silent and given up by the others, that fencing and elections should be considered.
	Dead
)

func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// MarshalText makes the verdict a word in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LinkState says whether a link carries packets there and back.
type LinkState uint8

// The link states.
const (
	Down LinkState = iota
	Up
)

func (s LinkState) String() string {
	if s == Up {
		return "up"
	}
	return "down"
}

// MarshalText makes the state a word in JSON.
func (s LinkState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Peer is what is known of another node. Values returned by this package share no memory with the detector.
type Peer struct {
	Name  string
	State State
	Links []Link
}

// Link is one network path to a peer.
type Link struct {
	// Address is the peer's end, as configured.
	Address string
	State   LinkState
	// RTT is the smoothed time there and back; zero before the first answer. It stays when the link goes down.
	RTT time.Duration
}

// Change tells that a peer's verdict, or the state of a link to it, became another.
type Change struct {
	Before, After Peer
}

// IsChange reports whether the two sides differ in anything but round-trip times, which are never the same twice.
func (c Change) IsChange() bool {
	return c.Before.State != c.After.State ||
		!slices.EqualFunc(c.Before.Links, c.After.Links, func(x, y Link) bool { return x.State == y.State })
}

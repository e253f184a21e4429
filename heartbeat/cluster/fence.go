package cluster

import (
	"fmt"
	"math/bits"
	"strings"
)

// What is known of making a node's machine stop. How it is done is none of this package's affair; what counts is said here: that one of
// a node's processes, and all before it, act no more.

// FencingRequired, as State.Fencing, has a promotion in another's place wait until that one's process is surely gone: fenced, or a person
// says so, or its own node has a newer one. Otherwise the end of its lease is enough.
const FencingRequired = "required"

// FenceWord is what is said of a node that is to be fenced.
type FenceWord string

// The words. A try begins, and then one of the next three is said of it; the others stand for themselves.
const (
	FenceBegun     FenceWord = "begun"
	FenceOff       FenceWord = "off"       // the agents say so, and what they were asked afterwards agrees
	FenceFailed    FenceWord = "failed"    // no level of agents could
	FenceEnded     FenceWord = "ended"     // it is not to be fenced any more: it answers, or the leader changed
	FenceConfirmed FenceWord = "confirmed" // by a person, who says that it is off
	FenceRefuted   FenceWord = "refuted"   // it was said to be off, and has answered since
)

// FenceNode says one of the words of a node. It is compare-and-set, like commands on a volume (R7): it names the attempt, and the process
// that it was decided on.
type FenceNode struct {
	Node string    `json:"node"`
	Word FenceWord `json:"word"`
	// Attempt is the number of the try; one more than the last for begun, confirmed and refuted, which only raises it.
	Attempt uint64 `json:"attempt"`
	// Start is the newest process of the node that was known: it and all before it are meant.
	Start uint64 `json:"start"`
	Level int    `json:"level,omitempty"` // of off: at which the agents were
	// Unverified: one of the agents has no status, so that its word is all there is.
	Unverified bool   `json:"unverified,omitempty"`
	Person     string `json:"person,omitempty"` // who said so, of confirmed, or asked for it
	Text       string `json:"text,omitempty"`   // why; what the agents said
}

// Fence is the record of it. Never changed in place.
type Fence struct {
	Attempt    uint64    `json:"attempt"`
	Word       FenceWord `json:"word"` // the newest
	Start      uint64    `json:"start"`
	By         string    `json:"by"` // the node that said so
	Person     string    `json:"person,omitempty"`
	AtMillis   int64     `json:"at_ms"`
	Failed     int       `json:"failed,omitempty"` // tries in a row
	Level      int       `json:"level,omitempty"`
	Unverified bool      `json:"unverified,omitempty"`
	Text       string    `json:"text,omitempty"`
	// Off is the newest process that is known to be off, and all before it with it. 0: none is.
	Off uint64 `json:"off,omitempty"`
}

// maxFenceText bounds what the state keeps of what agents say.
const maxFenceText = 1 << 10

// Gone reports whether a node's process surely acts no more, whatever its lease: it was fenced, or a person said so, or the node itself
// has registered a newer one, which its data directory lets run alone (R10, R24).
func (s *State) Gone(node string, process uint64) bool {
	n, ok := s.Nodes[node]
	return ok && (n.Start > process || n.Fence != nil && n.Fence.Off >= process)
}

// mayReplace: where fencing is required, nobody follows a primary that may still act (fencing is the last resort against a machine that
// serves without knowing that it must not). One that gave the volume up has said so itself.
func (s *State) mayReplace(p *Promote, v *Volume) string {
	if s.Fencing != FencingRequired || v.Primary == "" || p.Candidate == v.Primary || p.GaveUp || s.Gone(v.Primary, v.Process) {
		return ""
	}
	return fmt.Sprintf("fencing is required, and process %d of %s was neither fenced nor confirmed to be off", v.Process, v.Primary)
}

func (s *State) fenceNode(c Command, f *FenceNode) string {
	n, ok := s.Nodes[f.Node]
	if !ok {
		return fmt.Sprintf("node %q is not part of the cluster", f.Node)
	}
	var was Fence
	if n.Fence != nil {
		was = *n.Fence
	}
	if void := mayFence(f, &n, &was); void != "" {
		return void
	}
	now := Fence{Attempt: f.Attempt, Word: f.Word, Start: f.Start, By: c.By, Person: f.Person, AtMillis: c.AtMillis, Failed: was.Failed, Level: f.Level, Unverified: f.Unverified, Off: was.Off}
	now.Text, now.Person = clipFence(f.Text), clipFence(f.Person)
	switch f.Word {
	case FenceOff, FenceConfirmed:
		now.Off, now.Failed = max(was.Off, f.Start), 0
	case FenceFailed:
		now.Failed++
	case FenceEnded:
		now.Failed = 0
	case FenceRefuted:
		now.Off, now.Attempt = 0, max(f.Attempt, was.Attempt)
	}
	n.Fence = &now
	if f.Word == FenceRefuted && was.Word == FenceBegun { // that try goes on
		tried := was
		tried.Off = 0
		n.Fence = &tried
	}
	s.Nodes[f.Node] = n
	s.fenceEvent(c, &now, f.Node, was.Failed)
	return ""
}

func clipFence(s string) string {
	if len(s) > maxFenceText {
		return strings.ToValidUTF8(s[:maxFenceText], "")
	}
	return s
}

// mayFence compares what a word was decided on with what there is. What comes late, of an earlier try, counts for nothing: the node may
// have been started again since.
func mayFence(f *FenceNode, n *Node, was *Fence) string {
	switch f.Word {
	case FenceBegun, FenceConfirmed:
		if f.Start != n.Start {
			return fmt.Sprintf("process %d of %s is meant, process %d runs", f.Start, f.Node, n.Start)
		}
	case FenceOff, FenceFailed, FenceEnded:
		if was.Word != FenceBegun || was.Attempt != f.Attempt || was.Start != f.Start {
			return fmt.Sprintf("said of attempt %d on process %d of %s, the last is attempt %d on process %d: %s", f.Attempt, f.Start, f.Node, was.Attempt, was.Start, was.Word)
		}
		return ""
	case FenceRefuted: // whatever was begun meanwhile: at worst a further attempt finds what was true
		if was.Off == 0 || was.Off < f.Start {
			return fmt.Sprintf("process %d of %s was not said to be off", f.Start, f.Node)
		}
		return ""
	default:
		return fmt.Sprintf("unknown word %q", f.Word)
	}
	if f.Attempt != was.Attempt+1 {
		return fmt.Sprintf("decided on attempt %d on %s, the last is %d", f.Attempt-1, f.Node, was.Attempt)
	}
	return ""
}

// fenceEvent tells people, of tries in a row only the first, second, fourth, eighth and so on: what cannot be fenced for days must not
// push all else out of the history.
func (s *State) fenceEvent(c Command, f *Fence, node string, failed int) {
	told := ""
	if f.Text != "" {
		told = ": " + f.Text
	}
	switch f.Word {
	case FenceBegun:
		if failed == 0 {
			s.event(c, "fencing begun", nil, node, fmt.Sprintf("%s is being turned off by %s%s", node, f.By, told))
		}
	case FenceOff:
		sure := "and the agents' status says so too"
		if f.Unverified {
			sure = "by the agents' word alone, for one has no status"
		}
		s.event(c, "node fenced", nil, node, fmt.Sprintf("%s was turned off by the agents of level %d, %s; process %d and all before it are gone%s", node, f.Level, sure, f.Start, told))
	case FenceFailed:
		if bits.OnesCount(uint(f.Failed)) == 1 {
			s.event(c, "fencing failed", nil, node, fmt.Sprintf("%s could not be turned off, %d times by now%s", node, f.Failed, told))
		}
	case FenceEnded:
		s.event(c, "fencing ended", nil, node, fmt.Sprintf("%s is not turned off%s", node, told))
	case FenceConfirmed:
		s.event(c, "fencing confirmed", nil, node, fmt.Sprintf("%s says that %s is off; process %d and all before it count as gone%s", f.Person, node, f.Start, told))
	case FenceRefuted:
		s.event(c, "fencing refuted", nil, node, fmt.Sprintf("%s was said to be off and has answered since, as process %d: nothing rests on that any more%s", node, f.Start, told))
	}
}

// fences reports whether an older program would miss what is known of fencing.
func (s *State) fences() bool {
	for _, n := range s.Nodes {
		if n.Fence != nil {
			return true
		}
	}
	return s.Fencing != ""
}

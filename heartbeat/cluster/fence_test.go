package cluster

import (
	"reflect"
	"strings"
	"testing"
)

// word is a command of a fencing; the attempt is the one that is wanted next.
func word(s *State, w FenceWord, change ...func(*FenceNode)) Command {
	f := FenceNode{Node: "p", Word: w, Start: s.Nodes["p"].Start, Attempt: 1, Person: "bob", Level: 1}
	if r := s.Nodes["p"].Fence; r != nil {
		f.Attempt = r.Attempt
		if w == FenceBegun || w == FenceConfirmed || w == FenceRefuted {
			f.Attempt++
		}
	}
	for _, do := range change {
		do(&f)
	}
	return Command{By: "s", AtMillis: 7, FenceNode: &f}
}

func void(t *testing.T, s *State, c Command, why string) {
	t.Helper()
	if r := s.Apply(s.Index+1, 5, c); r.Void == "" || !strings.Contains(r.Void, why) {
		t.Errorf("%+v: void %q, want %q", c.FenceNode, r.Void, why)
	}
}

func required(t *testing.T) *State {
	t.Helper()
	s := formed(t)
	s.Fencing = FencingRequired
	return s
}

func TestWhereFencingIsRequiredNobodyFollowsWhoMayStillAct(t *testing.T) {
	restart := Command{StartNode: &StartNode{Node: "p", DataDir: "dp", Start: 5, Boot: "b"}}
	for name, c := range map[string]struct {
		before []Command // words as of the state that stands then
		words  []FenceWord
		p      func(*Promote)
		may    bool
	}{
		"nothing is known":               {},
		"it was tried":                   {words: []FenceWord{FenceBegun}},
		"it failed":                      {words: []FenceWord{FenceBegun, FenceFailed}},
		"fenced":                         {words: []FenceWord{FenceBegun, FenceOff}, may: true},
		"fenced, and tried again":        {words: []FenceWord{FenceBegun, FenceOff, FenceBegun, FenceFailed}, may: true},
		"a person says so":               {words: []FenceWord{FenceConfirmed}, may: true},
		"it lied":                        {words: []FenceWord{FenceBegun, FenceOff, FenceRefuted}},
		"it lied, and is off by now":     {words: []FenceWord{FenceBegun, FenceOff, FenceRefuted, FenceBegun, FenceOff}, may: true},
		"its node has a newer process":   {before: []Command{restart}, may: true},
		"it gave up":                     {p: func(p *Promote) { p.GaveUp = true }, may: true},
		"by force, and nothing is known": {p: func(p *Promote) { p.Basis = BasisForced }},
		"by force, and it was fenced":    {words: []FenceWord{FenceBegun, FenceOff}, p: func(p *Promote) { p.Basis = BasisForced }, may: true},
	} {
		s := required(t)
		for _, b := range c.before {
			ok(t, s, b)
		}
		for _, w := range c.words {
			ok(t, s, word(s, w))
		}
		p := promote(s, "s", BasisUnchanged)
		if c.p != nil {
			c.p(p)
		}
		r := s.Apply(s.Index+1, 5, Command{Promote: p})
		if (r.Void == "") != c.may || !c.may && !strings.Contains(r.Void, "fencing is required") {
			t.Errorf("%s: void %q", name, r.Void)
		}
	}
}

// The end of the lease is enough where fencing is not required, and for its own node.
func TestFencingIsNotAlwaysRequired(t *testing.T) {
	s := formed(t)
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	s = required(t)
	ok(t, s, Command{Promote: promote(s, "p", BasisForced)})
}

// A record of an earlier process says nothing of the one that is primary now.
func TestStaleFenceRecordCountsForNothing(t *testing.T) {
	s := required(t)
	ok(t, s, word(s, FenceBegun))
	ok(t, s, word(s, FenceOff))
	ok(t, s, Command{StartNode: &StartNode{Node: "p", DataDir: "dp", Start: 9, Boot: "b"}})
	v := s.Volumes["v"]
	v.Process = 9
	v.Members["p"] = Member{incA, 9}
	s.Volumes["v"] = v
	void(t, s, Command{Promote: promote(s, "s", BasisUnchanged)}, "process 9 of p")
	if !s.Gone("p", 8) || s.Gone("p", 9) || s.Gone("nobody", 1) {
		t.Error("what is gone")
	}
}

func TestWordsOfAnotherAttemptOrProcessAreVoid(t *testing.T) {
	s := required(t)
	void(t, s, word(s, FenceOff), "the last is attempt 0")
	void(t, s, word(s, FenceRefuted), "was not said to be off")
	void(t, s, word(s, "dreamt"), "unknown word")
	void(t, s, word(s, FenceBegun, func(f *FenceNode) { f.Node = "nobody" }), "not part of the cluster")
	void(t, s, word(s, FenceBegun, func(f *FenceNode) { f.Start++ }), "runs")
	void(t, s, word(s, FenceConfirmed, func(f *FenceNode) { f.Start-- }), "runs")
	void(t, s, word(s, FenceBegun, func(f *FenceNode) { f.Attempt = 2 }), "the last is 0")
	ok(t, s, word(s, FenceBegun))
	late := word(s, FenceOff)
	ok(t, s, word(s, FenceFailed))
	void(t, s, late, "failed")
	ok(t, s, word(s, FenceBegun))
	void(t, s, late, "attempt 2")
	void(t, s, word(s, FenceBegun, func(f *FenceNode) { f.Attempt = 2 }), "the last is 2") // a second leader's
	// It is started anew while it is being turned off: what is known then is known of the process before.
	off := word(s, FenceOff)
	ok(t, s, Command{StartNode: &StartNode{Node: "p", DataDir: "dp", Start: 9, Boot: "b"}})
	ok(t, s, off)
	if s.Gone("p", 9) {
		t.Error("the new process counts as gone")
	}
	void(t, s, word(s, FenceRefuted, func(f *FenceNode) { f.Start = 9 }), "was not said to be off")
}

// Its entries are sent when every node reads them, and then they are.
func TestFenceWordsAreReadableWhereEveryNodeKnowsThem(t *testing.T) {
	s := required(t)
	c := word(s, FenceBegun)
	if s.Readable(c.Encode()) {
		t.Error("a node that does not say what it reads")
	}
	for name, n := range s.Nodes {
		n.Reads = Reads
		s.Nodes[name] = n
	}
	if !s.Readable(c.Encode()) {
		t.Error("every node reads what this program does")
	}
}

// Of a node that is no part of the cluster nobody could say that it is off.
func TestPrimaryThatMayActIsNotRemoved(t *testing.T) {
	s := required(t)
	v := s.Volumes["v"]
	delete(v.Members, "p")
	s.Volumes["v"] = v
	void(t, s, Command{RemoveNode: &RemoveNode{Node: "p"}}, "is primary of")
}

func TestEventsOfFencingAreFew(t *testing.T) {
	s := required(t)
	before := len(s.Events)
	for range 100 {
		ok(t, s, word(s, FenceBegun))
		ok(t, s, word(s, FenceFailed, func(f *FenceNode) { f.Text = strings.Repeat("ü", maxFenceText) }))
	}
	f := s.Nodes["p"].Fence
	if f.Failed != 100 || len(f.Text) > maxFenceText || strings.ToValidUTF8(f.Text, "") != f.Text {
		t.Errorf("failed %d times, %d bytes", f.Failed, len(f.Text))
	}
	if n := len(s.Events) - before; n != 1+7 { // 1, 2, 4, 8, 16, 32, 64
		t.Errorf("%d events", n)
	}
	ok(t, s, word(s, FenceConfirmed))
	if e := s.Events[len(s.Events)-1]; e.Kind != "fencing confirmed" || e.Node != "p" || !strings.HasPrefix(e.Text, "bob says that p is off") {
		t.Errorf("%+v", e)
	}
}

// A program that knows no fencing would promote without it, so it must refuse the entries and the state (G54).
func TestFencingRaisesTheFormats(t *testing.T) {
	s := formed(t)
	plain := formatOf(t, s)
	ok(t, s, word(s, FenceBegun))
	ok(t, s, word(s, FenceOff))
	if got := formatOf(t, s); got == plain || !strings.HasSuffix(got, ":8") {
		t.Errorf("a node was fenced: %s", got)
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, s)
	}
	if got := formatOf(t, required(t)); !strings.HasSuffix(got, ":8") {
		t.Errorf("fencing is required: %s", got)
	}
	for name, c := range map[string]Command{"init": {Init: &Init{Fencing: FencingRequired}}, "configure": {Configure: &Configure{Fencing: FencingRequired}}} {
		if d, err := DecodeCommand(c.Encode()); err != nil || d.Format != commandFence {
			t.Errorf("%s: format %d, %v", name, d.Format, err)
		}
	}
	s = formed(t)
	conf := &Configure{Version: s.ConfigVersion, Hash: "h", Config: []byte{1}, RTOMillis: 1, Fencing: FencingRequired}
	ok(t, s, Command{Configure: conf})
	if s.Fencing != FencingRequired {
		t.Error("the configuration does not count")
	}
	void(t, s, Command{Configure: &Configure{Version: s.ConfigVersion, Hash: "h", Config: []byte{1}, RTOMillis: 1, Fencing: "perhaps"}}, "unknown fencing")
	ok(t, s, Command{Configure: &Configure{Version: s.ConfigVersion, Hash: "h", Config: []byte{1}, RTOMillis: 1}})
	if s.Fencing != "" || formatOf(t, s) != plain {
		t.Errorf("taken back: %q, %s", s.Fencing, formatOf(t, s))
	}
}

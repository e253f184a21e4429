package cluster

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// commands has one of each kind, every field set.
func commands() []Command {
	o, m, c := On{"v", 3, 10}, Member{incA, 4}, &Clean{incB, 3}
	node := Node{Name: "p", Witness: true, Address: "192.0.2.1:7000", RaftID: "r", DataDir: "d", Start: 4, Boot: "a", Config: "h"}
	vol := CreateVolume{Name: "v", ID: "i", Size: 1 << 30, Mode: "sync", Replicas: []Replica{{Node: "p", Device: "/dev/a"}}}
	all := []Command{
		{Init: &Init{ID: "c", Name: "prod", RTOMillis: 15000, ConfigHash: "h", Config: []byte{3}, Nodes: []Node{node}, Volumes: []CreateVolume{vol}}},
		{StartNode: &StartNode{Node: "p", DataDir: "d", Start: 4, Boot: "a", Config: "h"}},
		{AddNode: &node},
		{RemoveNode: &RemoveNode{Node: "p"}},
		{CreateVolume: &vol},
		{Form: &Form{On: o, Members: map[string]Member{"p": m}, InitialFrom: "p"}},
		{Promote: &Promote{On: o, Term: 5, Candidate: "p", Member: m, Basis: BasisClean, Clean: c, Leave: []string{"s"}, Reason: "lease expired"}},
		{Drop: &Drop{On: o, Node: "s", Reason: "no answer"}},
		{Admit: &Admit{On: o, Node: "s", Member: m, Full: true}},
		{Rejoin: &Rejoin{On: o, Node: "s", Member: m, Clean: c}},
		{AllowResync: &AllowResync{On: o, Node: "s"}},
		{Failover: &Failover{Volume: "v", From: "p", To: "s", Reason: "lease expired", Epoch: 4, AtMillis: 5, RTOMillis: 6, TargetMillis: 7, RPOBytes: 8, Stages: []Stage{{"wait", 9}}, Amended: true}},
		{Configure: &Configure{Version: 2, Hash: "h", Config: []byte{1, 2}, RTOMillis: 2000, Create: []CreateVolume{vol}, Remove: []RemoveVolume{{"w", "j", true}}}},
		{SettleLeases: &SettleLeases{Version: 3}},
		{PauseResync: &PauseResync{On: o, Nodes: []string{"s"}, Paused: true}},
		{FullResync: &FullResync{On: o, Node: "s"}},
		{SetMode: &SetMode{On: o, Mode: ModeAsync, Members: map[string]Member{"s": m}}},
		{SetDrained: &SetDrained{Node: "s", Drained: true}},
		{SetMaintenance: &SetMaintenance{On: true}},
		{FenceNode: &FenceNode{Node: "p", Word: FenceOff, Attempt: 2, Start: 4, Level: 1, Unverified: true, Person: "bob", Text: "x"}},
		{Batch: []Command{{Drop: &Drop{On: o, Node: "s", Reason: "no answer"}}, {By: "s", AtMillis: 1700000000001, Rejoin: &Rejoin{On: o, Node: "s", Member: m}}}},
	}
	for i := range all {
		all[i].Format, all[i].By, all[i].AtMillis = commandFormat, "p", 1700000000000
		if all[i].SetMode != nil {
			all[i].Format = commandModes
		}
		if all[i].SetDrained != nil || all[i].SetMaintenance != nil {
			all[i].Format = commandOperate
		}
		if all[i].FenceNode != nil {
			all[i].Format = commandFence
		}
		if all[i].Batch != nil {
			all[i].Format = commandBatch
		}
	}
	return all
}

func TestCommandsRoundTrip(t *testing.T) {
	for _, c := range commands() {
		got, err := DecodeCommand(c.Encode())
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v, %v; want %+v", got, err, c)
		}
	}
	n := reflect.TypeFor[Command]().NumField() - 4 // less format, by, time and packed, which only a command on its way has (packed_test.go)
	if got := len(commands()); got != n {
		t.Fatalf("%d kinds of commands are tested, there are %d", got, n)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the format has changed; a log written before cannot be read. Raise the format, or go test -update\ngot:\n%s", name, got)
	}
}

// The Raft log of a cluster that runs holds these bytes.
func TestCommandFormatIsPinned(t *testing.T) {
	var b bytes.Buffer
	for _, c := range commands() {
		b.Write(c.Encode())
		b.WriteByte('\n')
	}
	golden(t, "commands.jsonl", b.Bytes())
}

func TestStateFormatIsPinnedAndRoundTrips(t *testing.T) {
	s := formed(t)
	ok(t, s, Command{By: "p", AtMillis: 1700000000000, Drop: &Drop{On: on(s), Node: "x", Reason: "no answer"}})
	ok(t, s, Command{By: "p", AtMillis: 1700000000001, Promote: promote(s, "s", BasisUnchanged)})
	ok(t, s, Command{Failover: commands()[11].Failover})
	ok(t, s, Command{By: "p", AtMillis: 1700000000002, Promote: promote(s, "p", BasisForced)})
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Fatalf("%v\n got %+v\nwant %+v", err, got, s)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, b, "", " "); err != nil {
		t.Fatal(err)
	}
	golden(t, "state.json", append(pretty.Bytes(), '\n'))
}

// A program that knows no numbered sizes would take a smaller one for an old log, so it must refuse the entry and the state (G54).
func TestNumberedSizesRaiseTheFormats(t *testing.T) {
	c := Command{By: "p", AtMillis: 1700000000000, Configure: &Configure{Version: 2, Hash: "h", Config: []byte{1, 2}, RTOMillis: 2000,
		Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 1 << 19, Number: 4, Loses: 1 << 19}}}}
	b := c.Encode()
	golden(t, "resize.json", append(b, '\n'))
	c.Format = commandResized
	if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v, %v; want %+v", got, err, c)
	}
	c.Configure.Resize[0] = ResizeVolume{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 2 << 20}
	if got, err := DecodeCommand(c.Encode()); err != nil || got.Format != commandFormat {
		t.Errorf("a growth of an older program: format %d, %v", got.Format, err)
	}
	for name, change := range map[string]func(*Volume){"in force": func(v *Volume) { v.Resized, v.OldEnd = 3, 1<<21 }, "decided": func(v *Volume) { v.Next, v.NextResized = 4096, 1 }} {
		s := formed(t)
		v := s.Volumes["v"]
		change(&v)
		s.Volumes["v"] = v
		b, err := s.Encode()
		if err != nil || !bytes.Contains(b, []byte(`"format":2`)) {
			t.Fatalf("%s: %.40s, %v", name, b, err)
		}
		if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, got, s)
		}
	}
}

// A program that knows no groups would not set the devices of a removed one aside, so it must refuse the state (G54).
func TestRemovedGroupRaisesTheFormat(t *testing.T) {
	s := formed(t)
	s.Removed = []Removed{{Name: "pg", ID: "i", Parts: []Part{{Name: "data", Size: 4096}}}}
	if b, err := s.Encode(); err != nil || !bytes.Contains(b, []byte(`"format":4`)) {
		t.Errorf("%.40s, %v", b, err)
	}
	s.Removed[0].Parts = nil
	if b, err := s.Encode(); err != nil || !bytes.Contains(b, []byte(`"format":1`)) {
		t.Errorf("a volume that was in no group: %.40s, %v", b, err)
	}
}

// A program that knows no changes of a mode would leave the present one in force, so it must refuse the entries and the state (G54).
func TestChangesOfModesRaiseTheFormats(t *testing.T) {
	c := Command{By: "p", AtMillis: 1700000000000, Configure: &Configure{Version: 2, Hash: "h", Config: []byte{1, 2}, RTOMillis: 2000,
		Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 1 << 21, Number: 4}},
		Modes:  []ChangeMode{{Name: "v", ID: "i", Epoch: 3, Version: 10, Mode: ModeAsync}}}}
	b := c.Encode()
	golden(t, "modes.json", append(b, '\n'))
	c.Format = commandModes
	if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v, %v; want %+v", got, err, c)
	}
	s := formed(t)
	v := s.Volumes["v"]
	v.NextMode, v.Resized = ModeAsync, 2
	s.Volumes["v"] = v
	if b, err := s.Encode(); err != nil || !bytes.Contains(b, []byte(`"format":3`)) {
		t.Errorf("%.40s, %v", b, err)
	} else if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, s)
	}
	v.NextMode = "" // in force: every program reads it
	s.Volumes["v"] = v
	if b, err := s.Encode(); err != nil || !bytes.Contains(b, []byte(`"format":2`)) {
		t.Errorf("%.40s, %v", b, err)
	}
}

// faults.md M65, G54
func TestOtherFormatsAreRefusedNamingBoth(t *testing.T) {
	for _, format := range []string{"0", "11", "99", "-1"} {
		if _, err := DecodeCommand([]byte(`{"format":` + format + `,"drop":{"node":"s"}}`)); err == nil || !strings.Contains(err.Error(), format) || !strings.Contains(err.Error(), "1") {
			t.Errorf("command of format %s: %v", format, err)
		}
		if _, err := Decode([]byte(`{"format":` + format + `}`)); err == nil || !strings.Contains(err.Error(), format) || !strings.Contains(err.Error(), "1") {
			t.Errorf("state of format %s: %v", format, err)
		}
	}
	for _, b := range []string{"", "{", "null x", `{"format":"one"}`, `{"nodes":3}`, `{"format":1,"nodes":null}`, `{"format":1,"volumes":null}`, "\x00\x01"} {
		if _, err := DecodeCommand([]byte(b)); err == nil && !strings.Contains(b, "null}") {
			t.Errorf("command %q was read", b)
		}
		if _, err := Decode([]byte(b)); err == nil {
			t.Errorf("state %q was read", b)
		}
	}
}

func TestEncodeSetsTheFormat(t *testing.T) {
	c, err := DecodeCommand(Command{By: "p"}.Encode())
	if err != nil || c.Format != commandFormat {
		t.Fatalf("format %d, %v", c.Format, err)
	}
}

func TestVolumeWithoutMembersSurvivesASnapshot(t *testing.T) {
	s := formed(t)
	ok(t, s, Command{CreateVolume: &CreateVolume{Name: "u", Replicas: []Replica{{Node: "p"}}}})
	b, _ := s.Encode()
	s, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	o := On{"u", 0, 1}
	ok(t, s, Command{Form: &Form{On: o, Members: map[string]Member{"p": {incA, 1}}}})
	o.Version++
	ok(t, s, Command{Promote: &Promote{On: o, Term: 5, Candidate: "p", Member: Member{incA, 1}, Basis: BasisFirst}})
}

// Whatever the log holds: it is refused, or applied without harm.
func FuzzApply(f *testing.F) {
	for _, c := range commands() {
		f.Add(c.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		s := formed(t)
		s.Apply(s.Index+1, 5, c)
		enc, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(enc); err != nil {
			t.Fatal(err)
		}
	})
}

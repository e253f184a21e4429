package cluster

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func pg() CreateVolume {
	on := func(path string) map[string]string { return map[string]string{"p": path, "s": path} }
	return CreateVolume{Name: "pg", ID: "g", Size: 3 << 20, Mode: ModeAsync, Replicas: []Replica{{Node: "p", Device: "/d + /w"}, {Node: "s", Device: "/d + /w"}},
		Parts: []Part{{"data", 2 << 20, on("/d")}, {"wal", 1 << 20, on("/w")}}}
}

func TestAGroupIsOneVolumeWithWindows(t *testing.T) {
	s := formed(t)
	configured(t, s, Configure{Create: []CreateVolume{pg()}})
	if want, got := []string{"pg", "v"}, slices.Sorted(maps.Keys(s.Volumes)); !reflect.DeepEqual(got, want) {
		t.Fatalf("the state has volumes %v, want %v: the parts of a group are none of their own", got, want)
	}
	for name, want := range map[string]Window{"data": {"data", 0, 2 << 20}, "wal": {"wal", 2 << 20, 1 << 20}} {
		v, w, ok := s.Window(name)
		if !ok || v.Name != "pg" || w != want || s.Mirrored(name) != "pg" {
			t.Errorf("%s: %+v of %q (%t), mirrored as %q", name, w, v.Name, ok, s.Mirrored(name))
		}
	}
	if v, w, ok := s.Window("v"); !ok || v.Name != "v" || w != (Window{"v", 0, v.Size}) || s.Mirrored("v") != "v" {
		t.Errorf("v: %+v, %t", w, ok)
	}
	for _, none := range []string{"pg", "nothing"} { // the group itself is no volume that clients know
		if _, w, ok := s.Window(none); ok || s.Mirrored(none) != none {
			t.Errorf("%s: %+v, mirrored as %q", none, w, s.Mirrored(none))
		}
	}
	v := s.Volumes["pg"]
	if got := Paths(v.Parts, v.Replicas[1]); !reflect.DeepEqual(got, []string{"/d", "/w"}) {
		t.Errorf("the devices of s are %v", got)
	}
	configured(t, s, Configure{Remove: []RemoveVolume{{Name: "pg", ID: "g", DeleteData: true}}})
	if gone := s.Removed[len(s.Removed)-1]; !reflect.DeepEqual(gone.Parts, pg().Parts) {
		t.Errorf("what is to be deleted of a group is forgotten: %+v", gone)
	}
}

func TestAGroupThatDoesNotFitIsRefused(t *testing.T) {
	for why, change := range map[string]func(*CreateVolume){
		"together":            func(n *CreateVolume) { n.Size++ },
		"exists already":      func(n *CreateVolume) { n.Parts[0].Name = "v" },
		"exists":              func(n *CreateVolume) { n.Parts[1].Name = "data" },
		"already":             func(n *CreateVolume) { n.Parts[1].Name = "pg" },
		"has 0 bytes":         func(n *CreateVolume) { n.Parts[1].Size, n.Size = 0, 2<<20 },
		"has no device on s":  func(n *CreateVolume) { delete(n.Parts[1].Devices, "s") },
		"volume \"v\" exists": func(n *CreateVolume) { n.Name = "v" },
	} {
		s := formed(t)
		n := pg()
		change(&n)
		c := Configure{Version: s.ConfigVersion, Config: []byte("x"), RTOMillis: 1, Create: []CreateVolume{n}}
		if r := s.Apply(s.Index+1, 5, Command{Configure: &c}); !strings.Contains(r.Void, why) {
			t.Errorf("%s: %q", why, r.Void)
		}
	}
	s := formed(t)
	configured(t, s, Configure{Create: []CreateVolume{pg()}})
	for _, n := range []CreateVolume{{Name: "wal", ID: "x", Size: 1}, pg()} {
		c := Configure{Version: s.ConfigVersion, Config: []byte("x"), RTOMillis: 1, Create: []CreateVolume{n}}
		if r := s.Apply(s.Index+1, 5, Command{Configure: &c}); !strings.Contains(r.Void, "exists already") {
			t.Errorf("%s, which is there: %q", n.Name, r.Void)
		}
	}
	s = formed(t)
	c := Configure{Version: s.ConfigVersion, Config: []byte("x"), RTOMillis: 1, Create: []CreateVolume{pg(), {Name: "wal", ID: "x", Size: 1}}}
	if r := s.Apply(s.Index+1, 5, Command{Configure: &c}); !strings.Contains(r.Void, "named twice") {
		t.Errorf("a volume beside a part of that name: %q", r.Void)
	}
}

func TestAGroupKeepsItsSize(t *testing.T) {
	s := formed(t)
	configured(t, s, Configure{Create: []CreateVolume{pg()}})
	v := s.Volumes["pg"]
	c := Configure{Version: s.ConfigVersion, Config: []byte("x"), RTOMillis: 1, Resize: []ResizeVolume{{Name: "pg", ID: "g", Epoch: v.Epoch, Version: v.Version, Size: 4 << 20, Number: 1}}}
	if r := s.Apply(s.Index+1, 5, Command{Configure: &c}); !strings.Contains(r.Void, "keep their sizes") {
		t.Errorf("%q", r.Void)
	}
}

// A program that knows no groups would take the parts for one device, so it must refuse the entries and the state (G54).
func TestGroupsRaiseTheFormats(t *testing.T) {
	for _, c := range []Command{{Configure: &Configure{Create: []CreateVolume{pg()}}}, {Init: &Init{Volumes: []CreateVolume{pg()}}}, {CreateVolume: func() *CreateVolume { n := pg(); return &n }()}} {
		got, err := DecodeCommand(c.Encode())
		c.Format = commandGroups
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, c)
		}
	}
	s := formed(t)
	configured(t, s, Configure{Create: []CreateVolume{pg()}})
	b, err := s.Encode()
	if err != nil || !bytes.Contains(b, []byte(`"format":4`)) {
		t.Fatalf("%.40s, %v", b, err)
	}
	if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, s)
	}
	golden(t, "group.json", append(Command{By: "p", AtMillis: 1700000000000, CreateVolume: func() *CreateVolume { n := pg(); return &n }()}.Encode(), '\n'))
}

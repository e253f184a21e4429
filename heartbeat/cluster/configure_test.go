package cluster

import (
	"reflect"
	"strings"
	"testing"
)

// configured is what a change makes of the state, which must take it.
func configured(t *testing.T, s *State, n Configure) {
	t.Helper()
	n.Version, n.Config = s.ConfigVersion, []byte("text")
	if n.RTOMillis == 0 {
		n.RTOMillis = max(s.RTOMillis, 1)
	}
	ok(t, s, Command{Configure: &n})
}

func TestOfTwoChangesDecidedOnOneVersionOneIsVoid(t *testing.T) {
	s := formed(t)
	first := &Configure{Version: s.ConfigVersion, Hash: "a", Config: []byte("a"), RTOMillis: 2000}
	second := &Configure{Version: s.ConfigVersion, Hash: "b", Config: []byte("b"), RTOMillis: 3000}
	ok(t, s, Command{Configure: first})
	for _, late := range []*Configure{second, first} { // the first once more, too
		before := s.Clone()
		if r := s.Apply(s.Index+1, 5, Command{Configure: late}); !strings.Contains(r.Void, "version") {
			t.Errorf("a late change: %+v", r)
		}
		before.Index = s.Index
		if !reflect.DeepEqual(s, before) {
			t.Errorf("a void change changed the state")
		}
	}
	if s.ConfigHash != "a" || string(s.Config) != "a" || s.RTOMillis != 2000 {
		t.Errorf("the state has hash %s, rto %d", s.ConfigHash, s.RTOMillis)
	}
}

func TestChangeIsMadeAsAWholeOrNotAtAll(t *testing.T) {
	for name, n := range map[string]Configure{
		"a volume that exists":          {Create: []CreateVolume{{Name: "u"}, {Name: "v"}}},
		"the same volume twice":         {Create: []CreateVolume{{Name: "u"}, {Name: "u"}}},
		"an unknown node":               {Create: []CreateVolume{{Name: "u", Replicas: []Replica{{Node: "nobody"}}}}},
		"a removal of another volume":   {Create: []CreateVolume{{Name: "u"}}, Remove: []RemoveVolume{{Name: "v", ID: "another"}}},
		"a removal of none":             {Remove: []RemoveVolume{{Name: "nothing"}}},
		"a volume that does not grow":   {Create: []CreateVolume{{Name: "u"}}, Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 1 << 20}}},
		"growth of another volume":      {Resize: []ResizeVolume{{Name: "v", ID: "another", Epoch: 3, Version: 10, Size: 2 << 20}}},
		"growth in an earlier epoch":    {Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 2, Version: 10, Size: 2 << 20}}},
		"growth before a replica left":  {Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 9, Size: 2 << 20}}},
		"growth twice":                  {Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 2 << 20}, {Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}},
		"a volume removed and made new": {Remove: []RemoveVolume{{Name: "v", ID: "i"}}, Create: []CreateVolume{{Name: "v"}}},
	} {
		s := formed(t)
		want, version := s.Clone(), s.ConfigVersion
		n.Version, n.Config, n.RTOMillis = version, []byte("x"), 1
		if r := s.Apply(s.Index+1, 5, Command{Configure: &n}); r.Void == "" {
			t.Errorf("%s: applied", name)
		}
		if s.ConfigVersion != version+1 {
			t.Errorf("%s: the version did not rise: a late copy of the entry may take effect", name)
		}
		want.Index, want.ConfigVersion = s.Index, s.ConfigVersion
		if !reflect.DeepEqual(s, want) {
			t.Errorf("%s: something was changed", name)
		}
	}
}

func TestVolumesComeAndGoByAChange(t *testing.T) {
	s := formed(t)
	id := s.Volumes["v"].ID
	configured(t, s, Configure{Create: []CreateVolume{{Name: "u", ID: "k", Size: 4096, Mode: "sync", Replicas: []Replica{{Node: "p", Device: "/dev/u"}}}}})
	if v := s.Volumes["u"]; v.ID != "k" || v.Version != 1 || v.Epoch != 0 || len(v.Members) != 0 {
		t.Errorf("the new volume: %+v", v)
	}
	configured(t, s, Configure{Remove: []RemoveVolume{{Name: "v", ID: id, DeleteData: true}}})
	if _, there := s.Volumes["v"]; there || len(s.Removed) != 1 || s.Removed[0].ID != id || !s.Removed[0].DeleteData || len(s.Removed[0].Replicas) == 0 {
		t.Errorf("the removed volume: there %t, %+v", there, s.Removed)
	}
	if r := s.Apply(s.Index+1, 5, Command{Drop: &Drop{On: On{"v", 1, 2}, Node: "s"}}); !strings.Contains(r.Void, "does not exist") {
		t.Errorf("a command on the removed volume: %+v", r)
	}
}

func TestRemovedVolumesAreRememberedUpToALimit(t *testing.T) {
	s := formed(t)
	for range maxRemoved + 5 {
		configured(t, s, Configure{Create: []CreateVolume{{Name: "u", ID: "k"}}})
		configured(t, s, Configure{Remove: []RemoveVolume{{Name: "u", ID: "k"}}})
	}
	if len(s.Removed) != maxRemoved {
		t.Errorf("%d are remembered", len(s.Removed))
	}
}

// R10: until a leader has waited, leases of the longest target of late may be in force.
func TestShorterTargetKeepsTheLongestUntilLeasesAreSettled(t *testing.T) {
	s := formed(t)
	configured(t, s, Configure{RTOMillis: 8000})
	was := s.RTOMillis
	for _, rto := range []int64{was / 2, was / 4} {
		configured(t, s, Configure{RTOMillis: rto})
		if s.RTOMillis != rto || s.LongestRTOMillis != was {
			t.Errorf("target %d, longest %d, want %d and %d", s.RTOMillis, s.LongestRTOMillis, rto, was)
		}
	}
	if r := s.Apply(s.Index+1, 5, Command{SettleLeases: &SettleLeases{Version: s.ConfigVersion - 1}}); r.Void == "" || s.LongestRTOMillis != was {
		t.Errorf("settled by a leader that waited under an older configuration: %+v", r)
	}
	ok(t, s, Command{SettleLeases: &SettleLeases{Version: s.ConfigVersion}})
	if s.LongestRTOMillis != was/4 {
		t.Errorf("longest %d after settling", s.LongestRTOMillis)
	}
	configured(t, s, Configure{RTOMillis: 3 * was})
	if s.LongestRTOMillis != 3*was {
		t.Errorf("longest %d after growing", s.LongestRTOMillis)
	}
}

package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/filedev"
	"hacluster/blockdev/meta"
	"hacluster/blockdev/rescue"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// ofOneGroup is a node with a replica of a group of 2 MiB and 1 MiB, which was a member, closed.
func ofOneGroup(t *testing.T) (n *Node, data, wal string, st *cluster.State, vol cluster.Volume) {
	t.Helper()
	n, device := ofOneVolume(t)
	data, wal = device, filepath.Join(filepath.Dir(device), "wal")
	st = cluster.NewState()
	st.ID = strings.Repeat("1", 32)
	part := func(name string, size int64, path string) cluster.Part {
		return cluster.Part{Name: name, Size: size, Devices: map[string]string{"alpha": path, "beta": path}}
	}
	vol = cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: 3 << 20, Mode: "sync", Parts: []cluster.Part{part("data", 2<<20, data), part("log", 1<<20, wal)},
		Replicas: []cluster.Replica{{Node: "alpha", Device: data + " + " + wal}, {Node: "beta"}}}
	b, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.dev.WriteAt(bytes.Repeat([]byte("x"), 8192), 2<<20-4096); err != nil {
		t.Fatal(err)
	}
	b.close()
	vol.Epoch, vol.Primary, vol.Members = 5, "beta", map[string]cluster.Member{"alpha": {Incarnation: b.incarnation}, "beta": {}}
	return n, data, wal, st, vol
}

func TestBackingOfAGroupIsItsDevicesInOrder(t *testing.T) {
	n, data, wal, st, vol := ofOneGroup(t)
	for path, want := range map[string]struct {
		size int
		at   int
	}{data: {2 << 20, 2<<20 - 4096}, wal: {1 << 20, 0}} {
		got, err := os.ReadFile(path)
		if err != nil || len(got) != want.size || bytes.Count(got, []byte("x")) != 4096 || got[want.at] != 'x' {
			t.Errorf("%s has %d bytes, %d of them written (%v)", path, len(got), bytes.Count(got, []byte("x")), err)
		}
	}
	b, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{data, wal} { // R24: each is held
		if d, err := n.env.Disks.Open(path, filedev.Config{Size: 1 << 20}); err == nil {
			t.Errorf("%s can be opened a second time", path)
			d.Close()
		}
	}
	b.close()
	if b.incarnation != vol.Members["alpha"].Incarnation {
		t.Errorf("the same devices are another incarnation: %v, before %v", b.incarnation, vol.Members["alpha"].Incarnation)
	}
}

// R22: the metadata is of both devices. One that was replaced is refused, whichever it is.
func TestAnotherDeviceOfAGroupIsRefused(t *testing.T) {
	for i := range 2 {
		n, data, wal, st, vol := ofOneGroup(t)
		path := []string{data, wal}[i]
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{}); !errors.Is(err, meta.ErrMismatch) {
			t.Errorf("%s is another file: %v", filepath.Base(path), err)
		}
		if err := os.Rename(path+".old", path); err != nil {
			t.Fatal(err)
		}
		b, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{})
		if err != nil {
			t.Fatalf("%s is the old one again: %v", filepath.Base(path), err)
		}
		b.close()
	}
}

// faults.md C73, R16, R23: one device that was cut off is as bad as one backing that was.
func TestDeviceOfAGroupThatBecameSmallerHasFailed(t *testing.T) {
	for i := range 2 {
		n, data, wal, st, vol := ofOneGroup(t)
		path, size := []string{data, wal}[i], vol.Parts[i].Size
		if err := os.Truncate(path, 4096); err != nil {
			t.Fatal(err)
		}
		_, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "of what this replica held are lost") {
			t.Fatalf("%s is too short: %v", path, err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		b, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{})
		if err != nil {
			t.Fatal(err)
		}
		if !b.super.Failed() {
			t.Errorf("%s was short, is as long as before with zeroes at its end, and nobody knows", filepath.Base(path))
		}
		if _, marks := metadata(t, n); len(marks) == 0 {
			t.Error("there is no map") // it was made anew, with everything marked
		}
		b.close()
	}
}

// R16, R23: that a device was cut off is seen while another one cannot be opened, and not only when all others can.
func TestShortDeviceBesideAnAbsentOneHasFailed(t *testing.T) {
	for what, instead := range map[string]func(path string) error{
		"absent":          func(string) error { return nil },
		"not to be asked": func(path string) error { return os.Symlink(path, path) },
	} {
		n, data, wal, st, vol := ofOneGroup(t)
		if err := errors.Join(os.Rename(data, data+".gone"), instead(data), os.Truncate(wal, 4096)); err != nil {
			t.Fatal(err)
		}
		_, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{})
		if err == nil || !strings.Contains(err.Error(), data) || !strings.Contains(err.Error(), wal) || !strings.Contains(err.Error(), "of what this replica held are lost") {
			t.Fatalf("the first device is %s, the second too short: %v", what, err)
		}
		if err := errors.Join(os.Truncate(wal, vol.Parts[1].Size), os.Rename(data+".gone", data)); err != nil {
			t.Fatal(err)
		}
		b, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{}) // and none of them is held by the earlier try
		if err != nil {
			t.Fatal(err)
		}
		if !b.super.Failed() {
			t.Errorf("the second device lost all but a block while the first was %s, and the replica is trusted", what)
		}
		b.close()
	}
}

// A replica that is new makes no further file after one that it could not have.
func TestNewGroupMakesNoFileAfterARefusal(t *testing.T) {
	n, data, wal, st, vol := ofOneGroup(t)
	vol.Epoch, vol.Members = 0, nil
	dir, _ := n.vols.superblockPath(vol.Name)
	if err := errors.Join(os.RemoveAll(dir), os.Remove(wal), os.Truncate(data, 4096)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.vols.openBacking(st, vol, vol.Replicas[0].Device, config.Volume{}); err == nil {
		t.Fatal("a device that is too short was taken")
	}
	if _, err := os.Stat(wal); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other device was made all the same (%v)", err)
	}
}

func TestPathsOfAGroupFitTheSuperblock(t *testing.T) {
	if got := boundPath("/a + /b"); got != "/a + /b" {
		t.Errorf("%q", got)
	}
	long := strings.Repeat("/long/path + ", 40)
	got, other := boundPath(long), boundPath(long+"x")
	if len(got) != meta.MaxDevicePath || got == other || !strings.HasPrefix(got, "/long/path") {
		t.Errorf("%q and %q", got, other)
	}
}

// What a rescue image holds of a group is exported as each of its volumes.
func TestRescueImageOfAGroupIsExportedByVolume(t *testing.T) {
	_, _, _, _, vol := ofOneGroup(t)
	w := vol.Windows()
	data := bytes.Repeat([]byte("d"), 8192)
	for _, c := range []struct {
		in   cluster.Window
		part rescue.Part
		want rescue.Part
		ok   bool
	}{
		{w[0], rescue.Part{Off: 4096, Len: 8192, Data: data}, rescue.Part{Off: 4096, Len: 8192, Data: data}, true},
		{w[1], rescue.Part{Off: 4096, Len: 8192, Data: data}, rescue.Part{}, false},
		{w[0], rescue.Part{Off: 2<<20 - 4096, Len: 8192, Data: data}, rescue.Part{Off: 2<<20 - 4096, Len: 4096, Data: data[:4096]}, true},
		{w[1], rescue.Part{Off: 2<<20 - 4096, Len: 8192, Data: data}, rescue.Part{Off: 0, Len: 4096, Data: data[4096:]}, true},
		{w[1], rescue.Part{Off: 0, Len: 3 << 20}, rescue.Part{Off: 0, Len: 1 << 20}, true},
		{w[0], rescue.Part{Off: 2 << 20, Len: 4096}, rescue.Part{}, false},
	} {
		if got, ok := partIn(c.in, c.part); ok != c.ok || ok && !reflect.DeepEqual(got, c.want) {
			t.Errorf("[%d,+%d) in %s: [%d,+%d) with %d bytes, %t", c.part.Off, c.part.Len, c.in.Name, got.Off, got.Len, len(got.Data), ok)
		}
	}
	for asked, want := range map[string][]string{"": {"data", "log"}, "vol": {"vol"}, "log": {"log"}} {
		var names []string
		for _, w := range imagesAs(&vol, asked) {
			names = append(names, w.Name)
		}
		if !reflect.DeepEqual(names, want) {
			t.Errorf("who asks for %q sees the image as %v, want %v", asked, names, want)
		}
	}
}

// Each volume of a group is listed by its name, with the group's state and its own size, device and differences.
func TestStatusListsTheVolumesOfAGroup(t *testing.T) {
	_, _, _, _, vol := ofOneGroup(t)
	v := view{local: map[string]*control.LocalReply{"beta": {Serving: []control.Serving{{Volume: "vol", Epoch: 5, Device: "/dev/last",
		Parts: []control.PartServing{{Name: "data", Device: "/dev/h/data"}, {Name: "log", DeviceReason: "why"}}}}}}}
	all := api.VolumeStatus{Name: "vol", Size: 3 << 20, Primary: "beta", Epoch: 5, Verify: &api.VerifyStatus{DifferentBlocks: 3,
		Ranges: []api.VerifyRange{{Offset: 2<<20 - 4096, Length: 8192, RepairedBytes: 4096, PrimaryDigest: "d"}, {Offset: 0, Length: 4096}}}}
	got := v.asKnown(&vol, all, "")
	if len(got) != 2 || got[0].Name != "data" || got[1].Name != "log" || got[0].Size != 2<<20 || got[1].Size != 1<<20 || got[0].Group != "vol" || got[1].Epoch != 5 {
		t.Fatalf("%+v", got)
	}
	if got[0].Device != "/dev/h/data" || got[1].Device != "" || got[1].DeviceReason != "why" {
		t.Errorf("devices: %+v", got)
	}
	if r := got[0].Verify.Ranges; len(r) != 2 || r[0].Offset != 2<<20-4096 || r[0].Length != 4096 {
		t.Errorf("differences of data: %+v", r)
	}
	if v := got[1].Verify; v.Group != "vol" || v.Ranges[0].Volume != "log" || v.Ranges[0].PrimaryDigest != "" || got[0].Verify.Ranges[0].PrimaryDigest != "d" {
		t.Errorf("whose the counts are, and the range: %+v", v)
	}
	if a, b := got[0].Verify.Ranges[0], got[1].Verify.Ranges[0]; a.RepairedBytes != 0 || b.RepairedBytes != 0 { // half of it was, nobody knows which
		t.Errorf("repaired: %+v and %+v", a, b)
	}
	if r := got[1].Verify.Ranges; len(r) != 1 || r[0].Offset != 0 || r[0].Length != 4096 {
		t.Errorf("differences of log: %+v", r)
	}
	for asked, n := range map[string]int{"vol": 2, "log": 1} {
		if got := v.asKnown(&vol, all, asked); len(got) != n {
			t.Errorf("who asks for %s sees %d volumes", asked, len(got))
		}
	}
}

// Who consents to a loss names what would be lost: of a group, all of it.
func TestConsentForOneVolumeOfAGroupIsRefused(t *testing.T) {
	n, _, _, st, vol := ofOneGroup(t)
	vol.Replicas[1].Device = "/b"
	vol.Held = []string{"alpha"}
	st.Volumes["vol"], n.known = vol, st
	for what, do := range map[string]func(volume string) error{
		"create, keep": func(v string) error {
			return n.VolumeCreate(t.Context(), api.VolumeCreateRequest{Volume: v, InitialFrom: "beta"})
		},
		"create, discard": func(v string) error {
			return n.VolumeCreate(t.Context(), api.VolumeCreateRequest{Volume: v, DiscardData: true})
		},
		"discard": func(v string) error {
			return mayResync(&vol, api.VolumeResyncRequest{Volume: v, Replica: "alpha", DiscardTargetData: true})
		},
		"drop": func(v string) error {
			return mayResync(&vol, api.VolumeResyncRequest{Volume: v, Replica: "alpha", Full: true, DropMember: true})
		},
		"repair": func(v string) error {
			_, err := n.VolumeVerify(t.Context(), api.VolumeVerifyRequest{Volume: v, Repair: true})
			return err
		},
		"force": func(v string) error {
			_, err := n.Failover(t.Context(), api.FailoverRequest{Volume: v, To: "alpha", Force: true, AcceptDataLoss: true})
			return err
		},
	} {
		err := do("log")
		if api.KindOf(err) != api.KindRefused || !strings.Contains(err.Error(), `of group "vol"`) || !strings.Contains(err.Error(), "data, log") {
			t.Errorf("%s, in the name of one: %v", what, err)
		}
		if err := do("vol"); err != nil && strings.Contains(err.Error(), "name the group") {
			t.Errorf("%s, in the name of all: %v", what, err)
		}
	}
}

// A client never reaches from one volume of a group into the next.
func TestAWindowEndsWhereItsVolumeDoes(t *testing.T) {
	w := window{Window: cluster.Window{Name: "log", Off: 2 << 20, Size: 1 << 20}} // without an export: what passes panics
	for _, r := range []blockdev.Range{{Off: 1 << 20, Len: 1}, {Off: 1<<20 - 1, Len: 2}, {Off: -1, Len: 1}, {Off: 0, Len: 1<<20 + 1}} {
		for _, op := range []blockdev.Op{blockdev.OpRead, blockdev.OpWrite, blockdev.OpZero} {
			var err error
			w.Submit(&blockdev.Request{Op: op, Range: r, Done: func(r *blockdev.Request) { err = r.Err }})
			if !errors.Is(err, blockdev.ErrRange) {
				t.Errorf("%v %v: %v", op, r, err)
			}
		}
		if err := w.Extents(r, nil); !errors.Is(err, blockdev.ErrRange) {
			t.Errorf("extents of %v: %v", r, err)
		}
	}
}

func TestAGroupIsCreatedWithTheDevicesOfItsVolumes(t *testing.T) {
	rep := func(device string) []config.Replica {
		return []config.Replica{{Node: "alpha", Device: "/a/" + device}, {Node: "beta", Device: "/b/" + device}}
	}
	m := config.Mirror{Volume: config.Volume{Name: "pg", Size: 3, Mode: "async", Replicas: rep("")}, Parts: []config.Volume{{Name: "data", Size: 2, Replicas: rep("data")}, {Name: "wal", Size: 1, Replicas: rep("wal")}}}
	got := createVolume(m)
	want := []cluster.Part{{Name: "data", Size: 2, Devices: map[string]string{"alpha": "/a/data", "beta": "/b/data"}}, {Name: "wal", Size: 1, Devices: map[string]string{"alpha": "/a/wal", "beta": "/b/wal"}}}
	if got.Name != "pg" || got.Size != 3 || !reflect.DeepEqual(got.Parts, want) || got.Replicas[1] != (cluster.Replica{Node: "beta", Device: "/b/data + /b/wal"}) {
		t.Errorf("%+v", got)
	}
}

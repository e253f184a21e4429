package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// A replica that was removed and added again is another one: what the first left is set aside before the second is made, its rescue
// images and data stay, and what only it needed is deleted (R19, R25).
func TestReplicaThatWasRemovedIsSetAsideAndTheNextBeginsFromNothing(t *testing.T) {
	n, device := ofOneVolume(t)
	v := n.vols
	st := cluster.NewState()
	st.ID = strings.Repeat("1", 32)
	vol := cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: 1 << 20, Epoch: 5, Primary: "beta",
		Replicas: []cluster.Replica{{Node: "alpha", Device: device}, {Node: "beta"}}, Members: map[string]cluster.Member{"beta": {}}}
	b, err := v.openBacking(st, vol, device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.super.SetHealth(false, false); err != nil { // as after its resync
		t.Fatal(err)
	}
	if err := b.super.SetEpoch(5); err != nil {
		t.Fatal(err)
	}
	b.close()
	dir, path := v.superblockPath("vol")
	image := filepath.Join(dir, "rescue", "image")
	if err := errors.Join(os.MkdirAll(filepath.Dir(image), 0o700), os.WriteFile(image, []byte("x"), 0o600), os.WriteFile(device, []byte("data"), 0o600), os.Truncate(device, 1<<20)); err != nil {
		t.Fatal(err)
	}

	vol.Replicas, vol.LastNumber = []cluster.Replica{{Node: "beta", Number: 2}}, 2
	st.Volumes["vol"] = vol
	st.Nodes["alpha"] = cluster.Node{Start: n.dir.id.Start + 1}
	v.retire(st)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("it is set aside by a log that may be old: %v", err)
	}
	st.Nodes["alpha"] = cluster.Node{Start: n.dir.id.Start}
	v.retire(st)
	aside := filepath.Join(n.cfg.DataDir(), "removed", "vol-22222222-replica-0")
	for name, there := range map[string]bool{path: false, filepath.Join(aside, "superblock"): true, filepath.Join(aside, "rescue", "image"): true, filepath.Join(aside, "marks"): false} {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) == there {
			t.Errorf("%s is there: %t, want %t", name, !there, there)
		}
	}

	vol.Replicas = append(vol.Replicas, cluster.Replica{Node: "alpha", Device: device, Number: 3, Added: true})
	vol.LastNumber = 3
	if _, err := v.openBacking(st, vol, device, config.Volume{}); err == nil || !strings.Contains(err.Error(), "holds data") || !strings.Contains(err.Error(), "--full") {
		t.Fatalf("a device with content is taken: %v", err)
	}
	if p, err := os.ReadFile(device); err != nil || string(p[:4]) != "data" {
		t.Errorf("the refused device was written to: %v", err)
	}
	vol.Full = []string{"alpha"}
	b, err = v.openBacking(st, vol, device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	sb, err := meta.Read(path)
	if err != nil || sb.Replica != 3 || !sb.Inconsistent || sb.Epoch != 0 {
		t.Errorf("the next one begins with %+v, %v", sb, err)
	}
	for _, s := range b.marks.Slots() {
		if s.Peer != "" && !s.Everything {
			t.Errorf("it knows something of %s: %+v", s.Peer, s)
		}
	}
}

// A superblock of a number that was never given: the cluster's state went back, and nothing is set aside for that.
func TestReplicaOfANumberThatWasNotGivenStays(t *testing.T) {
	n, device := ofOneVolume(t)
	st := cluster.NewState()
	st.ID = strings.Repeat("1", 32)
	vol := cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: 1 << 20, Epoch: 5, Primary: "beta", LastNumber: 7,
		Replicas: []cluster.Replica{{Node: "beta", Number: 2}, {Node: "alpha", Device: device, Number: 7, Added: true}}, Members: map[string]cluster.Member{"beta": {}}}
	b, err := n.vols.openBacking(st, vol, device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	if n.vols.mayLag(vol) {
		t.Error("the one of the record waits for a newer log")
	}
	vol.Replicas, vol.LastNumber = []cluster.Replica{{Node: "beta", Number: 2}, {Node: "alpha", Device: device, Number: 5, Added: true}}, 5
	if !n.vols.mayLag(vol) {
		t.Error("one of another number is opened by a log that may be old")
	}
	if _, err := n.vols.partAside(&vol); err == nil || !strings.Contains(err.Error(), "went back") {
		t.Errorf("it is set aside: %v", err)
	}
	if _, err := n.vols.openBacking(st, vol, device, config.Volume{}); !errors.Is(err, meta.ErrMismatch) || !strings.Contains(err.Error(), "number of the replica") {
		t.Errorf("it is opened as another: %v", err)
	}
}

package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
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

// partedWhileAway is what a node left that was down when its replica was removed: of a volume of which it knows nothing newer.
func partedWhileAway(t *testing.T) (n *Node, device string, st *cluster.State, vol cluster.Volume) {
	t.Helper()
	n, device = ofOneVolume(t)
	st = cluster.NewState()
	st.ID = strings.Repeat("1", 32)
	st.Nodes["alpha"] = cluster.Node{Start: n.dir.id.Start}
	vol = cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: 1 << 20, Epoch: 5, Primary: "beta",
		Replicas: []cluster.Replica{{Node: "alpha", Device: device}, {Node: "beta"}}, Members: map[string]cluster.Member{"beta": {}}}
	b, err := n.vols.openBacking(st, vol, device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	return n, device, st, vol
}

// What a volume that was removed left on a node whose replica of it had gone, or become another, before: its data is deleted with that of
// no later replica, nor that of one which was never opened; and nothing stays in the way of a new volume of the name.
func TestReplicaThatWasRemovedBeforeItsVolumeIsSetAside(t *testing.T) {
	for name, added := range map[string]bool{"removed": false, "removed and added again elsewhere": true} {
		n, device, st, vol := partedWhileAway(t)
		other := device + ".other" // somebody's, which the volume never took
		if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		gone := cluster.Removed{Name: "vol", ID: vol.ID, DeleteData: true, Replicas: []cluster.Replica{{Node: "beta", Number: 2}}}
		if added {
			gone.Replicas = append(gone.Replicas, cluster.Replica{Node: "alpha", Device: other, Number: 3, Added: true})
		}
		st.Removed = []cluster.Removed{gone}
		n.vols.retire(st)
		_, path := n.vols.superblockPath("vol")
		aside := filepath.Join(n.cfg.DataDir(), "removed", "vol-22222222-replica-0", "superblock")
		for file, there := range map[string]bool{other: true, device: true, path: false, aside: true} {
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) == there {
				t.Errorf("%s: %s is there: %t, want %t", name, file, !there, there)
			}
		}
		vol.ID, vol.Epoch, vol.Members = strings.Repeat("3", 32), 0, nil
		if err := os.Remove(device); err != nil {
			t.Fatal(err)
		}
		b, err := n.vols.openBacking(st, vol, device, config.Volume{})
		if err != nil {
			t.Errorf("%s: a new volume of the name: %v", name, err)
			continue
		}
		b.close()
	}
}

// What the replica left that the volume had last is deleted with it, as was asked for.
func TestDataOfTheReplicaThatAVolumeHadLastIsDeleted(t *testing.T) {
	n, device, st, vol := partedWhileAway(t)
	st.Removed = []cluster.Removed{{Name: "vol", ID: vol.ID, DeleteData: true, Replicas: vol.Replicas}}
	n.vols.retire(st)
	if _, err := os.Stat(device); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its data is there still: %v", err)
	}
}

// What cannot be set aside now is when it can.
func TestReplicaThatCannotBeSetAsideIsTriedAgain(t *testing.T) {
	n, _, st, vol := partedWhileAway(t)
	vol.Replicas, vol.LastNumber = []cluster.Replica{{Node: "beta", Number: 2}}, 2
	st.Volumes["vol"] = vol
	blocks := filepath.Join(n.cfg.DataDir(), "removed")
	if err := os.WriteFile(blocks, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, path := n.vols.superblockPath("vol")
	n.vols.retire(st)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(blocks); err != nil {
		t.Fatal(err)
	}
	n.vols.retire(st)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its superblock is in its place still: %v", err)
	}
}

// R14, R16: a process that starts with a log of before a replica was added does not forget what it keeps of that.
func TestMapOfAnAddedReplicaOutlivesAnOlderLog(t *testing.T) {
	n, device, st, old := partedWhileAway(t)
	now := old.Clone()
	now.Replicas = []cluster.Replica{{Node: "alpha", Device: device, Number: 1}, {Node: "beta", Number: 2}, {Node: "gamma", Number: 3, Added: true}}
	now.LastNumber, now.Version = 3, 20
	b, err := n.vols.openBacking(st, now, device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	for i, c := range []struct {
		vol  cluster.Volume
		lags bool
	}{{now, false}, {old, true}, {now, false}} {
		if got := n.vols.mayLag(c.vol); got != c.lags {
			t.Errorf("%d: the log lags: %t, want %t", i, got, c.lags)
		}
		st.Nodes["alpha"] = cluster.Node{Start: n.dir.id.Start + 1} // not ours: our start is not in the log yet
		if n.vols.openSome(st, []cluster.Volume{c.vol}) == c.lags {
			t.Errorf("%d: opened: %t", i, !c.lags)
		}
		h, _ := n.vols.replicaOf(c.vol)
		if h == nil {
			continue
		}
		h.cancel()
		<-h.ended
		delete(n.vols.all, "vol")
		dir, _ := n.vols.superblockPath("vol")
		_, peers, err := marks.Peek(filepath.Join(dir, "marks"))
		if want := replication.Peers(&now, "alpha"); err != nil || len(peers) != len(want) || peers[1] != want[1] {
			t.Errorf("%d: the map has %v, %v; want %v", i, peers, err, want)
		}
	}
}

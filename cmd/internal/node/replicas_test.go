package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// The volumes of a group may stand in another order in the file than when it was created: each gets the device that is its own.
func TestReplicaOfAGroupGetsTheDevicesOfItsVolumes(t *testing.T) {
	dir := t.TempDir()
	vol := func(name, size string, nodes ...string) string {
		s := fmt.Sprintf("volume %q {\n  size = %q\n  group = \"pg\"\n  mode = \"sync\"\n", name, size)
		for _, n := range nodes {
			s += fmt.Sprintf("  replica %q { device = \"/srv/%s/%s.img\" }\n", n, n, name)
		}
		return s + fmt.Sprintf("  export {\n    nbd = [\"unix://%s/${node.name}-%s.sock\"]\n    attach = \"none\"\n  }\n}\n", dir, name)
	}
	head := fmt.Sprintf("cluster \"c\" {\n  rto = \"10s\"\n  data_dir = \"%s/${node.name}\"\n}\n", dir)
	for i, name := range []string{"alpha", "beta", "gamma"} {
		head += fmt.Sprintf("node %q {\n  address = %q\n}\n", name, freeAddress(t, i+1))
	}
	load := func(file, text string) *config.Config {
		p := filepath.Join(dir, file)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(p, config.Options{Node: "alpha", Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := load("old.hcl", head+vol("data", "8MiB", "alpha", "beta")+vol("wal", "1MiB", "alpha", "beta"))
	next := load("new.hcl", head+vol("wal", "1MiB", "alpha", "beta", "gamma")+vol("data", "8MiB", "alpha", "beta", "gamma"))
	if steps := old.Plan(next); len(config.Refused(steps)) > 0 {
		t.Fatalf("refused: %+v", steps)
	}
	m, _ := old.Mirror("pg")
	c := createVolume(m)
	st := cluster.NewState()
	st.Volumes["pg"] = cluster.Volume{Name: "pg", ID: "x", Epoch: 1, Mode: "sync", Size: c.Size, Replicas: c.Replicas, Parts: c.Parts}
	all := replicaChanges(st, next)
	if len(all) != 1 || len(all[0].Add) != 1 {
		t.Fatalf("%+v", all)
	}
	a := all[0].Add[0]
	if want := []string{"/srv/gamma/data.img", "/srv/gamma/wal.img"}; !slices.Equal(a.Devices, want) || a.Device != want[0]+" + "+want[1] {
		t.Errorf("%q, %q; want %q", a.Devices, a.Device, want)
	}
}

package node

import (
	"os"
	"path/filepath"
	"testing"

	"hacluster/heartbeat/cluster"
)

// A deletion that could not be carried out is tried again at the next start, when the device may have been given to another
// volume.
func TestDataOfAVolumeThatHasTheDeviceNowIsNotDeleted(t *testing.T) {
	for name, c := range map[string]struct {
		node         string // that gives the device to another volume
		opened, gone bool
	}{"on this node": {"alpha", true, false}, "on this node, and not opened": {"alpha", false, true}, "on another": {"beta", true, true}} {
		dir, device := filepath.Join(t.TempDir(), "vol"), filepath.Join(t.TempDir(), "disk")
		for _, f := range []string{filepath.Join(dir, "superblock"), device} {
			if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		st := cluster.NewState()
		st.Volumes["other"] = cluster.Volume{Name: "other", Replicas: []cluster.Replica{{Node: c.node, Device: device}}}
		where, err := deleteAll(dir, device, userOf(st, "alpha", device, func(cluster.Volume) bool { return c.opened }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(device); os.IsNotExist(err) != c.gone {
			t.Errorf("%s: %s: %v", name, where, err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: the metadata is there still: %v", name, err)
		}
	}
}

package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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
		where, err := deleteAll(dir, []leftBacking{{device, userOf(st, "alpha", device, func(cluster.Volume) bool { return c.opened })}})
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

// Names of devices are often links (/dev/vg0/data). Neither the link nor what it leads to is deleted, and the event says what it was.
func TestDeletionLeavesWhatALinkLeadsTo(t *testing.T) {
	for name, c := range map[string]struct{ to, want string }{"a file": {"file", "the file "}, "a device": {"/dev/null", "the device /dev/null"}, "nothing": {"gone", "nothing is there"}} {
		dir := t.TempDir()
		to, link, meta := c.to, filepath.Join(dir, "link"), filepath.Join(dir, "vol")
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		if c.to == "file" {
			if err := os.WriteFile(to, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Symlink(to, link), os.Mkdir(meta, 0o700)); err != nil {
			t.Fatal(err)
		}
		where, err := deleteAll(meta, []leftBacking{{device: link}})
		if err != nil || !strings.Contains(where, "symbolic link") || !strings.Contains(where, c.want) {
			t.Errorf("%s: %q, %v", name, where, err)
		}
		if _, err := os.Lstat(link); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(to); c.to == "file" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(meta); !os.IsNotExist(err) {
			t.Errorf("%s: the metadata is there still: %v", name, err)
		}
	}
}

package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// shortened is a replica of 2 MiB that was a member, closed, and what its node knows of it.
func shortened(t *testing.T) (n *Node, device string, st *cluster.State, vol cluster.Volume) {
	t.Helper()
	n, device = ofOneVolume(t)
	st = cluster.NewState()
	st.ID = strings.Repeat("1", 32)
	vol = cluster.Volume{Name: "vol", ID: strings.Repeat("2", 32), Size: 2 << 20, Mode: "sync", Replicas: []cluster.Replica{{Node: "alpha", Device: device}, {Node: "beta"}}}
	b, err := n.vols.openBacking(st, vol, device, config.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	vol.Epoch, vol.Primary, vol.Members = 5, "beta", map[string]cluster.Member{"alpha": {Incarnation: b.incarnation}, "beta": {}}
	return n, device, st, vol
}

func metadata(t *testing.T, n *Node) (super, marks []byte) {
	t.Helper()
	dir, path := n.vols.superblockPath("vol")
	super, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	marks, _ = os.ReadFile(filepath.Join(dir, "marks")) // nil: it is not there
	return super, marks
}

// faults.md C73, R16, R23: a backing that was cut off is refused with both numbers, and is no candidate afterwards although it was
// made longer again: what was behind its end is gone.
func TestBackingThatBecameSmallerHasFailedUntilItIsResynced(t *testing.T) {
	n, device, st, vol := shortened(t)
	if err := os.Truncate(device, 1<<20); err != nil {
		t.Fatal(err)
	}
	for try := range 2 { // it is tried again and again
		h := n.vols.open(st, vol, vol.Replicas[0])
		for _, part := range []string{"1048576 bytes", "2097152", "the last 1048576 bytes", "until the backing is long enough and has been resynced"} {
			if !strings.Contains(h.broken, part) {
				t.Errorf("try %d: %q is not in %q", try, part, h.broken)
			}
		}
		if rep := h.replica.Report(); rep.Held || rep.Usable() {
			t.Errorf("try %d: it may be promoted: %+v", try, rep)
		}
		h.cancel()
		<-h.ended
	}
	if info, err := os.Stat(device); err != nil || info.Size() != 1<<20 {
		t.Errorf("the backing was changed: %v, %v", info, err)
	}
	if err := os.Truncate(device, 2<<20); err != nil {
		t.Fatal(err)
	}
	h := n.vols.open(st, vol, vol.Replicas[0])
	defer func() { h.cancel(); <-h.ended }()
	if rep := h.replica.Report(); h.broken != "" || !rep.Held || !rep.Failed || rep.Usable() || rep.Unmarked != nil || rep.Clean != nil {
		t.Errorf("enlarged again: %q, %+v", h.broken, rep)
	}
	h.cancel()
	<-h.ended
	m, err := n.vols.openMarks(st, vol, mustRead(t, n).Attachment, false, "")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if slot, ok := m.Lookup(marks.Peer{Name: "beta"}); !ok || !m.Slots()[slot].Everything {
		t.Error("the resync would copy what the map knew of, not what was lost")
	}
}

func mustRead(t *testing.T, n *Node) meta.Superblock {
	t.Helper()
	_, path := n.vols.superblockPath("vol")
	sb, err := meta.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

// What is refused and has lost nothing of the replica is not blamed for it: another, smaller disk in its place, and one too small
// for a growth. The metadata stays as it is, to the byte.
func TestSmallerBackingsThatLostNothingChangeNoMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		size int64
		do   func(device string) error
		want string
	}{
		"another file": {2 << 20, func(device string) error {
			if err := os.Rename(device, device+".old"); err != nil {
				return err
			}
			return os.WriteFile(device, make([]byte, 1<<20), 0o600)
		}, "1048576 bytes, the volume needs 2097152"},
		"too small to grow": {4 << 20, func(device string) error { return os.Truncate(device, 3<<20) }, "3145728 bytes, the volume needs 4194304"},
	} {
		t.Run(name, func(t *testing.T) {
			n, device, st, vol := shortened(t)
			super, marks := metadata(t, n)
			if err := c.do(device); err != nil {
				t.Fatal(err)
			}
			vol.Size = c.size
			h := n.vols.open(st, vol, vol.Replicas[0])
			if rep := h.replica.Report(); !strings.Contains(h.broken, c.want) || strings.Contains(h.broken, "lost") || rep.Usable() {
				t.Errorf("%q, %+v", h.broken, rep)
			}
			h.cancel()
			<-h.ended
			if s, m := metadata(t, n); !bytes.Equal(s, super) || !bytes.Equal(m, marks) {
				t.Error(fmt.Sprint("its metadata was changed: superblock ", !bytes.Equal(s, super), ", marks ", !bytes.Equal(m, marks)))
			}
		})
	}
}

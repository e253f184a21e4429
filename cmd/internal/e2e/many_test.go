package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/heartbeat/cluster"
)

// The volumes of a node that dies move by one entry, each with all that was acknowledged, and come back into sync.
func TestManyVolumesMoveByOneEntry(t *testing.T) {
	const many = 300 // more than fit into one entry that is not compressed
	cfg := Config{Size: "1MiB", RTO: "6s", Apart: true}
	for i := 2; i <= many; i++ {
		cfg.More = append(cfg.More, fmt.Sprint("vol", i))
	}
	names := append([]string{Volume}, cfg.More...)
	r := newRig(t, cfg)
	r.start()
	s := r.until("all volumes are healthy", manyAre(many, api.VolumeHealthy))
	victim := s.Volumes[0].Primary
	var its []string
	for _, v := range s.Volumes {
		if v.Primary == victim {
			its = append(its, v.Name)
		}
	}
	for i, name := range names {
		r.fillOne(primaryOf(s, name), name, byte(i+1))
	}
	r.Kill(victim)
	heir := other(victim)
	s = r.until("the other node serves all", func(s *api.Status) bool {
		for _, v := range s.Volumes {
			if v.Primary != heir {
				return false
			}
		}
		return manyAre(many, api.VolumeDegraded)(s)
	})
	for i, name := range names {
		r.holdsOne(heir, name, byte(i+1))
	}
	if entries := r.promotedBy(heir, heir, s); len(entries) != 1 || len(its) != many {
		t.Errorf("%d volumes were promoted by the entries %v, want one for all of %d", len(its), entries, many)
	}
	r.start(victim)
	r.until("all volumes are healthy again", manyAre(many, api.VolumeHealthy))
}

func manyAre(n int, state string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		is := 0
		for _, v := range s.Volumes {
			if v.State == state {
				is++
			}
		}
		return s.Quorum && is == n
	}
}

func primaryOf(s *api.Status, volume string) string {
	for _, v := range s.Volumes {
		if v.Name == volume {
			return v.Primary
		}
	}
	return ""
}

// promotedBy are the log entries by which node became primary in the present epochs, with how many volumes moved by each, as a node
// keeps the history.
func (r *rig) promotedBy(at, node string, s *api.Status) map[uint64]int {
	r.t.Helper()
	epochs := map[string]uint64{}
	for _, v := range s.Volumes {
		epochs[v.Name] = v.Epoch
	}
	entries := map[uint64]int{}
	r.until("the history is kept", func(*api.Status) bool {
		b, err := os.ReadFile(filepath.Join(r.DataDir(at), "known.json"))
		if err != nil {
			return false
		}
		st, err := cluster.Decode(b)
		if err != nil {
			return false
		}
		clear(entries)
		seen := 0
		for _, e := range st.Events {
			if e.Kind == "promoted" && e.Node == node && uint64(e.Epoch) == epochs[e.Volume] {
				entries[e.Index]++
				seen++
			}
		}
		return seen == len(epochs)
	})
	return entries
}

func (r *rig) clientOf(node, volume string) *nbdclient.Client {
	r.t.Helper()
	uri := r.URI(node)
	if volume != Volume {
		uri = fmt.Sprintf("nbd+unix:///%s?socket=%s/%s-%s.sock", volume, r.cfg.Dir, node, volume)
	}
	c, err := nbdclient.Dial(r.ctx, uri)
	if err != nil {
		r.t.Fatalf("%s at %s: %v", volume, node, err)
	}
	return c
}

func (r *rig) fillOne(node, volume string, with byte) {
	r.t.Helper()
	c := r.clientOf(node, volume)
	defer c.Close()
	if _, err := c.WriteAt(bytes.Repeat([]byte{with}, 64<<10), 4096); err != nil {
		r.t.Fatalf("write %s: %v", volume, err)
	}
}

func (r *rig) holdsOne(node, volume string, with byte) {
	r.t.Helper()
	c := r.clientOf(node, volume)
	defer c.Close()
	got := make([]byte, 64<<10)
	if _, err := c.ReadAt(got, 4096); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{with}, 64<<10)) {
		r.t.Errorf("%s does not hold what was acknowledged: %.8x, %v", volume, got, err)
	}
}

package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
)

// replicas writes a file in which the volume has replicas on these nodes.
func (r *rig) replicas(name string, nodes ...string) string {
	r.t.Helper()
	src, err := os.ReadFile(r.File())
	if err != nil {
		r.t.Fatal(err)
	}
	var text []string
	for line := range strings.Lines(string(src)) {
		if rest, ok := strings.CutPrefix(line, `  replica "`); ok {
			if node, _, _ := strings.Cut(rest, `"`); !slices.Contains(nodes, node) {
				continue
			}
		}
		text = append(text, line)
	}
	path := filepath.Join(filepath.Dir(r.File()), name)
	if err := os.WriteFile(path, []byte(strings.Join(text, "")), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// holds is a condition for until: the volume is served and has replicas on these nodes, all of them members.
func holds(nodes ...string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		if len(s.Volumes) != 1 || len(s.Volumes[0].Replicas) != len(nodes) {
			return false
		}
		for _, n := range nodes {
			if !slices.Contains(s.Volumes[0].InSync, n) {
				return false
			}
		}
		return PrimaryIs(s.Volumes[0].Primary)(s)
	}
}

// twoOfThree is a cluster of three data nodes, of which alpha and beta hold the volume; all is the file with all three replicas.
func twoOfThree(t *testing.T, mode string) (r *rig, all string) {
	t.Helper()
	r = newRig(t, Config{RTO: "4s", Copies: 3, Mode: mode})
	all = r.replicas("all.hcl", "alpha", "beta", "gamma")
	install(t, r.replicas("two.hcl", "alpha", "beta"), r.File())
	r.start()
	r.until("the volume is healthy", Healthy)
	return r, all
}

// Under a writer a replica is added and admitted, the one of the primary is removed, and the new primary killed: nothing that was
// acknowledged is lost, and no client sees an error. One that was removed while its node was down finds out when it is back.
func TestReplicasAreAddedAndRemovedUnderLoad(t *testing.T) {
	for _, mode := range some(t, 1, "sync", "semisync") {
		t.Run(mode, func(t *testing.T) { addedAndRemoved(t, mode) })
	}
}

func addedAndRemoved(t *testing.T, mode string) {
	r, all := twoOfThree(t, mode)
	l := r.load()
	out, _ := r.admin(0, "apply", all, "--yes")
	r.says(out, "replica gamma", "new, on "+r.Disk("gamma"))
	r.until("the third is a member", holds("alpha", "beta", "gamma"))
	l.more(100)
	if v := r.vol(); v.Epoch != 1 {
		t.Errorf("the volume moved to epoch %d for it", v.Epoch)
	}
	install(t, all, r.File())

	old := r.vol().Primary
	stay := slices.DeleteFunc([]string{"alpha", "beta", "gamma"}, func(n string) bool { return n == old })
	out, _ = r.admin(0, "apply", r.replicas("without.hcl", stay...), "--yes")
	r.says(out, "replica "+old, "removed")
	after := r.until("the other two hold it", holds(stay...)).Volumes[0]
	r.untilLog(old, "the replica of this node was removed")
	if _, err := os.Stat(filepath.Join(r.DataDir(old), "volumes", Volume)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the metadata of the removed replica is where it was: %v", err)
	}
	l.more(100)

	r.Kill(after.Primary)
	r.until("the last one serves", servedByOther(after.Primary))
	l.more(200)
	last := r.vol().Primary
	if !slices.Contains(stay, last) {
		t.Fatalf("%s serves, which holds no replica", last)
	}
	r.start(after.Primary)
	r.until("the killed one is a member again", holds(stay...))
	l.more(100)

	// The device of the one that was removed has content: it is not taken without a word.
	r.admin(0, "apply", all, "--yes")
	s := r.until("its device is refused", func(s *api.Status) bool {
		return len(s.Volumes) == 1 && len(s.Volumes[0].Replicas) == 3 && strings.Contains(replica(s, old).Reason, "holds data")
	})
	r.says(replica(s, old).Reason, r.Disk(old), "--full")
	r.admin(0, "volume", "resync", "vol", "--replica", old, "--full")
	r.until("all three are members", holds("alpha", "beta", "gamma"))
	l.more(100)

	// Removed while its node is down.
	v := r.vol()
	down := v.InSync[slices.IndexFunc(v.InSync, func(n string) bool { return n != v.Primary })]
	r.Kill(down)
	before, err := os.ReadFile(r.Disk(down))
	if err != nil {
		t.Fatal(err)
	}
	stay = slices.DeleteFunc([]string{"alpha", "beta", "gamma"}, func(n string) bool { return n == down })
	r.admin(0, "apply", r.replicas("two.hcl", stay...), "--yes")
	r.until("the other two hold it", holds(stay...))
	l.more(100)
	told := len(r.happened(v.Primary, "replica closed"))
	r.start(down)
	r.until("it is back", func(s *api.Status) bool {
		return s.Quorum && nodeNamed(s, down).State == "alive" && len(r.happened(down, "replica closed")) > 0
	})
	l.more(100)
	if now, err := os.ReadFile(r.Disk(down)); err != nil || !bytes.Equal(before, now) {
		t.Errorf("the data of the removed replica changed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.DataDir(down), "volumes", Volume)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the metadata of the removed replica is where it was: %v, %d told before", err, told)
	}
	if texts := r.happened(down, "replica closed"); !strings.Contains(texts[len(texts)-1], r.Disk(down)) {
		t.Errorf("its events are %q", texts)
	}
	l.stop()
}

// The volumes of a group get and lose a replica together, each with a device of its own.
func TestGroupGetsAndLosesAReplica(t *testing.T) {
	r := newRig(t, Config{RTO: "4s", Copies: 3, More: []string{"wal"}})
	all := r.replicas("all.hcl", "alpha", "beta", "gamma")
	two := r.replicas("two.hcl", "alpha", "beta")
	install(t, two, r.File())
	r.start()
	have := func(members int) func(*api.Status) bool {
		return func(s *api.Status) bool {
			for _, v := range s.Volumes {
				if len(v.InSync) != members || len(v.Replicas) != members {
					return false
				}
			}
			return len(s.Volumes) > 0 && s.Quorum
		}
	}
	r.until("two are members", have(2))
	r.admin(0, "apply", all, "--yes")
	r.until("the third is a member", have(3))
	for _, v := range []string{Volume, "wal"} {
		if info, err := os.Stat(r.DiskOf("gamma", v)); err != nil || info.Size() != 64<<20 {
			t.Errorf("the device of %s on gamma: %v, %v", v, info, err)
		}
	}
	r.admin(0, "apply", two, "--yes")
	r.until("two are left", have(2))
	r.untilLog("gamma", "the replica of this node was removed")
}

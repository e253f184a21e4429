package e2e

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/api"
	"hacluster/heartbeat/cluster"
)

// faults.md F121, F122, F123: a stale replica is promoted only by a person who was told what is at risk; the old
// primary comes back, is resynced, and what it had of its own is kept aside.
func TestF121ForcedPromotionOfAStaleReplica(t *testing.T) {
	r := healthy(t, Config{})
	dev := r.dial(r.URIs()...)
	write := func(block int64, seq uint64) {
		t.Helper()
		if _, err := dev.WriteFUA(stamped(block, seq), block*StampSize); err != nil {
			t.Fatal(err)
		}
	}
	write(1, 1)
	stale, _, after := r.killed("the one that becomes stale", true)
	old := after.Primary
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember(stale)(s) })
	write(1, 2) // the stale replica lacks this
	write(2, 3)
	for _, args := range [][]string{{"--to", stale}, {"--to", stale, "--force", "--accept-data-loss"}} {
		_, errs := r.admin(3, append([]string{"failover", "vol"}, args...)...)
		r.says(errs, "not a member", "does not answer: start it", "R6")
	}
	_, errs := r.admin(3, "failover", "vol")
	r.says(errs, "R6")
	dev.Close()
	r.Kill(old)
	r.start(stale)
	s := r.until("nobody serves", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == "unavailable" && replica(s, stale).State == "out_of_sync"
	})
	r.says(s.Volumes[0].Reason, old+" does not answer")
	if len(s.Volumes[0].Promotable) != 0 {
		t.Errorf("a stale replica counts as promotable: %v", s.Volumes[0].Promotable)
	}
	for _, args := range [][]string{{"--to", stale}, {"--to", stale, "--force"}} { // F122
		_, errs := r.admin(3, append([]string{"failover", "vol"}, args...)...)
		r.says(errs, "67108864 bytes", "--accept-data-loss")
	}
	r.admin(2, "failover", "vol", "--to", stale, "--accept-data-loss")
	r.admin(2, "failover", "vol", "--force", "--accept-data-loss")
	r.admin(3, "node", "remove", old) // F123: the last in-sync replica

	r.admin(0, "failover", "vol", "--to", stale, "--force", "--accept-data-loss")
	s = r.until("the person's word is done", PrimaryIs(stale))
	if f := s.LastFailover; f == nil || f.To != stale || f.RPOBytes == 0 {
		t.Errorf("the forced promotion is recorded as %+v", f)
	}
	dev = r.dial(r.URIs()...)
	r.holds(dev, 1, 1)
	r.holds(dev, 2, 0)
	write(3, 4)

	r.admin(0, "volume", "pause", "vol")
	r.start(old)
	r.until("the old primary is there, and waits", stateOfReplica(old, "out_of_sync"))
	write(3, 5)
	_, errs = r.admin(3, "failover", "vol", "--to", old)
	r.says(errs, "not a member")
	_, errs = r.admin(3, "failover", "vol", "--to", old, "--force", "--accept-data-loss")
	r.says(errs, "serves")
	_, errs = r.admin(3, "volume", "resync", "vol", "--target", old)
	r.says(errs, "--discard-target-data")
	r.admin(1, "volume", "resync", "vol", "--target", stale, "--discard-target-data")
	r.admin(0, "volume", "resume", "vol")
	r.until("healthy", Healthy)
	if kept := r.happened(old, "rescue image kept"); len(kept) != 1 {
		t.Errorf("kept aside: %q, want what %s had of its own", kept, old)
	}
	write(1, 6)
	r.holds(dev, 2, 0)
	dev.Close()
	r.same()
}

// An inconsistent replica, or one that never held the volume's data, is not promoted by any word.
func TestF121InconsistentReplicaCannotBeForced(t *testing.T) {
	r := healthy(t, Config{RTO: "6s"})
	dev := r.dial(r.URIs()...)
	if _, err := dev.WriteAt(stamped(1, 1), StampSize); err != nil {
		t.Fatal(err)
	}
	bad, before, after := r.killed("the one that will be in pieces", true)
	old := after.Primary
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember(bad)(s) })
	dev.Close()
	r.Kill(old)
	r.inPieces(bad)
	r.start(bad)
	r.until("it is known to be in pieces", stateOfReplica(bad, "inconsistent"))
	_, errs := r.admin(3, "failover", "vol", "--to", bad, "--force", "--accept-data-loss")
	r.says(errs, "inconsistent")
	if v := r.vol(); v.Epoch != before.Epoch || v.Primary != old {
		t.Errorf("%s was promoted in epoch %d", v.Primary, v.Epoch)
	}
	r.start(old)
	r.until("the right one serves and resyncs it", Healthy)
	r.same()
}

// A node that was added anew, with an empty device, holds no state of the volume: nobody can promote it before its
// first resync.
func TestF121NewReplicaCannotBeForced(t *testing.T) {
	r := healthy(t, Config{})
	blank, _, _ := r.killed("the one that is to be replaced", true)
	empty(t, r.DataDir(blank))
	if err := os.Remove(r.Disk(blank)); err != nil {
		t.Fatal(err)
	}
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember(blank)(s) })
	r.admin(0, "node", "remove", blank)
	r.start(blank)
	r.untilLog(blank, "ha-admin node add "+blank)
	r.admin(0, "node", "add", blank)
	r.until("healthy", Healthy)
	// Again, and now the primary dies before the resync.
	_, _, after := r.struck(blow{what: "the blank one dies", node: blank, strike: func(node string) { r.Kill(node) }, undo: func(node string) { r.start(node) }})
	old := after.Primary
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember(blank)(s) })
	r.Kill(old)
	if err := os.Remove(filepath.Join(r.DataDir(blank), "volumes", Volume, "superblock")); err != nil {
		t.Fatal(err)
	}
	r.start(blank)
	r.until("it is known to hold nothing", stateOfReplica(blank, "inconsistent"))
	_, errs := r.admin(3, "failover", "vol", "--to", blank, "--force", "--accept-data-loss")
	r.says(errs, "inconsistent")
	r.start(old)
	r.until("the right one serves and resyncs it", Healthy)
	r.same()
}

// faults.md F123: neither the primary nor the last in-sync replica can be removed, nor a voter whose loss costs the
// quorum.
func TestF123RemovalsThatWouldLoseDataOrQuorum(t *testing.T) {
	r := healthy(t, Config{RTO: "4s"})
	l := r.load()
	primary := r.vol().Primary
	r.admin(3, "node", "remove", primary)
	r.Kill("gamma")
	r.until("there is a leader", func(s *api.Status) bool { return s.Quorum })
	r.admin(3, "node", "remove", other(primary)) // it would leave one of two
	l.more(50)
	r.start("gamma")
	r.until("gamma is back", func(s *api.Status) bool { return s.Quorum && s.Nodes[2].State == "alive" })
	r.Kill(other(primary))
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember(other(primary))(s) })
	r.admin(3, "node", "remove", primary)
	r.start(other(primary))
	r.until("healthy", Healthy)
	l.stop()
	r.same()
}

// inPieces marks a replica, while its daemon does not run, as one that an interrupted resync left.
func (r *rig) inPieces(node string) {
	r.t.Helper()
	var st cluster.State
	b, err := os.ReadFile(filepath.Join(r.DataDir(node), "known.json"))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	id := func(s string) (id meta.ID) {
		b, err := hex.DecodeString(s)
		if err != nil {
			r.t.Fatal(err)
		}
		copy(id[:], b)
		return id
	}
	f, err := meta.Open(filepath.Join(r.DataDir(node), "volumes", Volume, "superblock"), meta.Binding{ClusterID: id(st.ID), VolumeID: id(st.Volumes[Volume].ID),
		Node: node, Size: 64 << 20, BlockSize: blockdev.BlockSize, DevicePath: r.Disk(node)})
	if err == nil {
		err = f.Update(func(sb *meta.Superblock) { sb.Inconsistent = true })
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

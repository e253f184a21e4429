package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"hacluster/cmd/internal/api"
)

// kills is how often TestPrimaryKilledInAResync kills: HACLUSTER_RESYNC_KILLS (make resynckills), else once.
func kills(t *testing.T) int {
	text := os.Getenv("HACLUSTER_RESYNC_KILLS")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HACLUSTER_RESYNC_KILLS is %q: a number of kills is wanted", text)
	}
	return n
}

// The primary is killed at a random point of a resync, again and again, in turn on either node, and its target promoted by
// force: a file system without a fault, with every file, to the byte what it was before the resync (R18). Then the old
// primary gives up what nobody else has, and the next round begins.
func TestPrimaryKilledInAResync(t *testing.T) {
	rounds := kills(t)
	if os.Getenv("HACLUSTER_RESYNC_KILLS") == "" {
		long(t, "TestForcedStandbyReturnsFromAResyncWithItsFiles, whose primary dies at one and the same point")
	}
	needs(t, "e2fsprogs", "mke2fs", "e2fsck", "debugfs")
	if testing.Short() {
		t.Skip("real processes take their time: not with -short")
	}
	bin, err := tagged()
	if err != nil {
		t.Fatal(err)
	}
	r := healthy(t, Config{Bin: bin, Size: imageSize})
	dir, before := r.image("before", 1)
	_, after := r.image("after", 2)
	rng := rand.New(rand.NewPCG(crashSeed(t), 0))
	late := 0
	for round := 0; round < rounds; {
		primary, standby := r.behind(before, after)
		point := fmt.Sprintf("resync.copy:%d", 1+rng.IntN(20))
		if rng.IntN(4) == 0 {
			point = fmt.Sprintf("resync.compare:%d", 2+rng.IntN(24))
		}
		if !r.killedInResync(primary, standby, point) {
			late++ // it had less to do than that: all is equal now, to what is written next
		} else {
			round++
			r.forcedBack(primary, standby, dir, before)
		}
		t.Logf("round %d: %s on %s, late %d", round, point, primary, late)
	}
	r.same()
}

// killedInResync has the primary kill itself at a point of the resync that its restart begins; false: the resync ended first.
func (r *rig) killedInResync(primary, standby, point string) bool {
	r.t.Helper()
	r.Kill(primary)
	r.SetEnv(primary, "HACLUSTER_FAILPOINT="+point)
	r.start(primary)
	r.until("it serves again, or has died", func(s *api.Status) bool { return r.Pid(primary) == 0 || PrimaryIs(primary)(s) })
	r.start(standby)
	r.until("the primary is dead, or all is equal", func(s *api.Status) bool {
		return r.Pid(primary) == 0 && s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == api.VolumeUnavailable &&
			replica(s, standby).Point != nil || r.Pid(primary) != 0 && Healthy(s)
	})
	r.SetEnv(primary)
	return r.Pid(primary) == 0
}

// forcedBack promotes the standby by force, compares what it serves, and has the old primary give up what it has.
func (r *rig) forcedBack(primary, standby, dir string, want []byte) {
	r.t.Helper()
	r.admin(0, "failover", "vol", "--to", standby, "--force", "--accept-data-loss")
	r.until("it serves", PrimaryIs(standby))
	dev := r.dial(r.URIs()...)
	got := r.read(dev)
	dev.Close()
	if !bytes.Equal(got, want) {
		r.t.Fatal("the volume is not, to the byte, what it was before the resync")
	}
	r.holdsFiles(got, dir)
	for _, p := range []string{dir + ".out", dir + ".out.img"} {
		if err := os.RemoveAll(p); err != nil {
			r.t.Fatal(err)
		}
	}
	r.start(primary)
	r.until("the old primary is back", func(s *api.Status) bool {
		return Healthy(s) || stateOfReplica(primary, api.ReplicaOutOfSync)(s) || stateOfReplica(primary, api.ReplicaResyncing)(s)
	})
	if r.vol().State == api.VolumeDegraded {
		ctx, cancel := r.within()
		r.Admin(ctx, "volume", "resync", "vol", "--replica", primary, "--discard-target-data") // void if it has begun by itself
		cancel()
	}
	r.until("it gave up what nobody else has", Healthy)
}

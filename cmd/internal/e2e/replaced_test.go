package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
)

// A standby's disk is replaced: another disk under the old superblock is refused, and with the superblock taken away all of
// it is compared, whatever is on it.
func TestReplacedDiskOfAStandbyIsComparedAsAWhole(t *testing.T) {
	r := healthy(t, Config{})
	primary := r.vol().Primary
	standby := other(primary)
	dev := r.dial(r.URIs()...)
	write := func(block int64, seq uint64) {
		t.Helper()
		if _, err := dev.WriteFUA(stamped(block, seq), block*StampSize); err != nil {
			t.Fatal(err)
		}
	}
	write(1, 1)
	r.stop(standby)
	write(2, 2)
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember(standby)(s) })
	if err := os.Rename(r.Disk(standby), r.Disk(standby)+".old"); err != nil {
		t.Fatal(err)
	}
	other := strings.Repeat("what another machine left", 100)
	if err := os.WriteFile(r.Disk(standby), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(r.Disk(standby), 64<<20); err != nil {
		t.Fatal(err)
	}
	r.start(standby)
	s := r.until("it is refused", stateOfReplica(standby, api.ReplicaFailed))
	r.says(replica(s, standby).Reason, "this is another file under the same path")
	write(3, 3) // nobody waits for it
	r.stop(standby)
	if err := os.RemoveAll(filepath.Join(r.DataDir(standby), "volumes", Volume)); err != nil {
		t.Fatal(err)
	}
	r.start(standby)
	r.until("it is in sync", Healthy)
	dev.Close()
	if got := r.happened(primary, "resync ended"); len(got) > 0 {
		r.says(got[len(got)-1], "67108864 bytes compared")
	}
	r.same()
}

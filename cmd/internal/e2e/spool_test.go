package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/api"
)

// spoolBlock is a bound that memory is not enough for; more: further lines.
func spoolBlock(patience, more string) string {
	return "  async {\n    max_lag_bytes = \"4GiB\"\n    max_lag = \"1h\"\n    patience = \"" + patience + "\"\n" + more + "  }"
}

// shaped puts a limit on the line between the two, while they run.
func (r *rig) shaped(rate string) {
	r.t.Helper()
	r.admin(0, "apply", r.edited("line.hcl", `volume "vol" {`, "link \"alpha\" \"beta\" {\n  rate = \""+rate+"\"\n}\nvolume \"vol\" {"), "--yes")
}

const (
	burstBytes  = 512 << 20
	burstWrites = burstBytes / chainWrite
	thinLine    = 10 << 20 // bytes a second
)

// A burst of 512 MiB into a line of 80 Mbit/s: the writer does not feel the line, and status tells what would be lost. Then the primary is
// killed: what the standby has is a prefix, and lost is what status had told, at most.
func TestAsyncSpoolTakesABurstAndTheRestIsAPrefix(t *testing.T) {
	r := inAsync(t, Config{Extra: spoolBlock("60s", "")})
	r.shaped("80Mbit")
	primary := r.vol().Primary
	standby := other(primary)
	c := r.chain(primary, 0)
	begin := time.Now()
	c.await(burstWrites)
	took := time.Since(begin)
	if line := burstBytes / thinLine * time.Second; took > line/2 {
		t.Errorf("%d MiB took %v, and the line needs %v for them", burstBytes>>20, took, line)
	}
	s := r.until("status knows of the spool", func(s *api.Status) bool {
		return s.Quorum && s.Volumes[0].Async != nil && s.Volumes[0].Async.SpoolBytes > burstBytes/4
	})
	if a := s.Volumes[0].Async; a.Writers != api.WritersFree || a.SpoolReason != "" {
		t.Errorf("status: %+v", a)
	}
	out, _ := r.admin(0, "status")
	r.says(out, "  spool: ", " of what standbys lack")
	if rss := r.residentBytes(primary); rss > 300<<20 {
		t.Errorf("the primary has %d MiB in memory", rss>>20)
	}
	c.end()
	acked := c.acked.Load()
	before := r.vol().Async
	r.Kill(primary)
	r.until("the standby took over", PrimaryIs(standby))
	kept, err := prefix(r.dial(r.URIs()...))
	if err != nil {
		t.Fatalf("after the failover the volume is no prefix of what was written: %v", err)
	}
	lost := (acked - kept) * chainWrite
	if lost <= 0 || before.LossBytes == nil || lost > *before.LossBytes {
		t.Errorf("%d bytes are lost, status had told %v", lost, before.LossBytes)
	}
	if f := r.lastFailover(); f.RPOBytes < lost {
		t.Errorf("%d bytes are lost, the record is %+v", lost, f)
	}
	t.Logf("%d MiB in %v; %d writes acknowledged, %d kept, %d MiB lost, status had told %d MiB", burstBytes>>20, took, acked, kept, lost>>20, *before.LossBytes>>20)
}

// A burst that goes on until it has all arrived: nothing is dropped, and the replicas are the same.
func TestAsyncSpoolEmptiesInOrder(t *testing.T) {
	r := inAsync(t, Config{Extra: spoolBlock("60s", "")})
	r.shaped("400Mbit")
	primary := r.vol().Primary
	c := r.chain(primary, 0)
	c.await(burstWrites)
	r.until("it was used", func(s *api.Status) bool {
		return s.Quorum && s.Volumes[0].Async != nil && s.Volumes[0].Async.SpoolBytes > 0
	})
	c.end()
	r.until("the standby has all", func(s *api.Status) bool {
		a := s.Volumes[0].Async
		return s.Quorum && a != nil && a.LossBytes != nil && *a.LossBytes == 0 && a.SpoolBytes == 0
	})
	if told := r.happened(primary, "member dropped"); len(told) != 0 {
		t.Errorf("%v", told)
	}
	r.same()
}

// The file system of the spool is full: writers come down to the line, the volume goes on, and an operator is told where and what to do.
func TestAsyncSpoolWithoutRoomFailsNoVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system takes root, who may mount it")
	}
	dir := t.TempDir()
	if err := unix.Mount("hacluster-e2e", dir, "tmpfs", 0, "size=100m"); err != nil {
		t.Skipf("a small file system takes CAP_SYS_ADMIN and tmpfs: mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	r := inAsync(t, Config{Extra: spoolBlock("60s", "    spool = \""+dir+"\"\n")})
	r.shaped("80Mbit")
	primary := r.vol().Primary
	c := r.chain(primary, 0)
	r.until("the spool takes nothing", func(s *api.Status) bool {
		return s.Quorum && s.Volumes[0].Async != nil && s.Volumes[0].Async.SpoolReason != ""
	})
	n := c.acked.Load()
	c.await(n + 300) // at the speed of the line
	if told := r.happened(primary, "spool failed"); len(told) == 0 || !strings.Contains(told[0], dir) || !strings.Contains(told[0], "the spool is full") {
		t.Errorf("what is said of it: %q", told)
	}
	if s := r.vol(); s.Async.LossBytes == nil || *s.Async.LossBytes > 300<<20 || len(s.InSync) != 2 {
		t.Errorf("status: %+v, %v", s.Async, s.InSync)
	}
	c.end()
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("in the folder: %v, %v", names, err)
	}
	r.until("the standby has all", func(s *api.Status) bool {
		a := s.Volumes[0].Async
		return s.Quorum && a != nil && a.LossBytes != nil && *a.LossBytes == 0
	})
	r.same()
}

// residentBytes is what a daemon has in memory of its own.
func (r *rig) residentBytes(node string) int64 {
	r.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.Pid(node)))
	if err != nil {
		r.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		r.t.Fatal(err)
	}
	return kb << 10
}

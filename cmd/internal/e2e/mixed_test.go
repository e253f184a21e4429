package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
)

// A near standby in sync, a far one in async: writers wait for the near one alone, and it is the one that follows, with everything (R3,
// R6). The mode of the far one is changed while the volume is used, to async and back (R13).
func TestReplicaWithAModeOfItsOwn(t *testing.T) {
	r := healthy(t, Config{RTO: "4s", Copies: 3, Extra: "  async {\n    max_lag_bytes = \"64MiB\"\n    max_lag = \"10s\"\n    patience = \"60s\"\n  }"})
	const far = "gamma"
	if r.vol().Primary == far {
		r.admin(0, "failover", "vol", "--to", "alpha")
	}
	primary := r.until("one that is near serves", func(s *api.Status) bool { return members(3)(s) && s.Volumes[0].Primary != far }).Volumes[0].Primary
	near := other(primary)
	alone := fmt.Sprintf("replica %q { device = %q }", far, r.Disk(far))
	own := fmt.Sprintf("replica %q {\n    device = %q\n    mode   = \"async\"\n  }", far, r.Disk(far))
	has := func(mode string) func(*api.Status) bool {
		return func(s *api.Status) bool {
			return members(3)(s) && s.Volumes[0].NextMode == "" && replica(s, far).Mode == mode && replica(s, near).Mode == "sync"
		}
	}
	c := r.chain(primary, time.Millisecond)
	c.await(chainSlots + 64)
	out, _ := r.admin(0, "apply", r.edited("far.hcl", alone, own), "--yes")
	r.says(out, "change online", "replica gamma: mode")
	r.until("the far one is in async", has("async"))
	r.installApplied()
	out, _ = r.admin(0, "status")
	r.says(out, "async: if "+primary+" were lost now, at most 0 B would be")

	r.signal(syscall.SIGSTOP, far)
	had := c.acked.Load()
	c.await(had + 200) // nobody waits for it
	if n := r.writtenOn(near); n < had+100 {
		t.Errorf("%s, in sync, has the first %d writes only, %d were acknowledged before", near, n, had+200)
	}
	r.Kill(primary)
	c.end()
	acked := c.acked.Load()
	r.signal(syscall.SIGCONT, far)
	r.until("the near one took over", PrimaryIs(near))
	if kept, err := prefix(r.dial(r.URIs()...)); err != nil || kept < acked {
		t.Errorf("%s has the first %d writes, %v; %d were acknowledged", near, kept, err, acked)
	}
	if f := r.lastFailover(); f.To != near || f.RPOBytes != 0 {
		t.Errorf("the record is %+v", f)
	}
	r.start(primary)
	near = primary
	r.until("all are members again", has("async"))
	r.admin(0, "apply", r.edited("near.hcl", own, alone), "--yes")
	r.until("all are in sync", has("sync"))
	r.same()
}

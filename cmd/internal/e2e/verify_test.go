package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
)

// verify runs one to its end and gives what it says. A machine without time to spare may drop the standby meanwhile, which
// ends it: it is begun again.
func (r *rig) verify(code int, more ...string) (v api.VerifyStatus, errs string) {
	r.t.Helper()
	for {
		r.until("healthy", Healthy)
		ctx, cancel := r.within()
		out, errs, got := r.Admin(ctx, append([]string{"volume", "verify", "vol", "-o", "json"}, more...)...)
		cancel()
		if out == "" && (got == 4 || got == 1) {
			r.t.Logf("not begun: %s", errs)
			continue
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			r.t.Fatalf("%v: %s %s", err, out, errs)
		}
		if v.State == api.VerifyInterrupted {
			r.t.Logf("interrupted: %s", errs)
			continue
		}
		if got != code {
			r.t.Fatalf("exit code %d, want %d: %s%s", got, code, out, errs)
		}
		return v, errs
	}
}

// faults.md 64: rot on a standby's disk, of which no map knows, is found under load by a verify, named, repaired on request
// only, counted and told.
func TestM64RotOnAStandbyIsFoundAndRepairedByVerify(t *testing.T) {
	r := healthy(t, Config{RTO: "20s"}) // a busy machine alone must move no role here
	primary := r.vol().Primary
	standby := other(primary)
	l := r.load()
	l.more(100)
	if v, _ := r.verify(0); v.DifferentBlocks+v.UnreadableBlocks != 0 || !v.Complete || v.DoneBytes != v.TotalBytes || v.Primary != primary {
		t.Errorf("%+v", v)
	}
	rotten := []int64{40 << 20, 40<<20 + 4096, 50<<20 + 100}
	for _, off := range rotten {
		r.corrupt(standby, off)
	}
	v, errs := r.verify(1)
	r.says(errs, "3 blocks", "--repair", primary)
	if v.DifferentBlocks != 3 || v.RepairedBlocks != 0 || len(v.Ranges) != 2 || v.Ranges[0].Node != standby || v.Ranges[0].PrimaryDigest == v.Ranges[0].ReplicaDigest {
		t.Errorf("%+v", v)
	}
	if v, _ := r.verify(0, "--repair"); v.DifferentBlocks != 3 || v.RepairedBlocks != 3 || !v.Repair {
		t.Errorf("%+v", v)
	}
	v, _ = r.verify(0)
	if v.DifferentBlocks != 0 {
		t.Errorf("%+v", v)
	}
	if s := r.vol().Verify; s == nil || !s.StartedAt.Equal(v.StartedAt) || s.State != api.VerifyDone {
		t.Errorf("status has %+v", s)
	}
	if out, _ := r.admin(0, "status"); !strings.Contains(out, "verify: done") {
		t.Error(out)
	}
	if got := r.happened(primary, "verify found"); len(got) < 4 { // two ranges, found twice
		t.Errorf("%q", got)
	}
	_, errs = r.admin(1, "volume", "verify", "vol", "--stop")
	r.says(errs, "none runs")
	l.stop()
	r.same()
}

// A verify whose primary is killed is not reported as anything; on the next primary it can be begun again. Without a member
// to compare with it is refused.
func TestVerifyAfterAFailover(t *testing.T) {
	r := healthy(t, Config{RTO: "6s"})
	primary, _, _ := r.struck(blow{what: "a verify",
		strike: func(node string) {
			ctx, cancel := r.within()
			defer cancel()
			if _, errs, code := r.Admin(ctx, "volume", "verify", "vol", "--detach"); code != 0 {
				r.until("the standby was dropped: "+errs, func(s *api.Status) bool { return r.drops(other(node), node) > 0 })
			}
			r.Kill(node)
		},
		undo: func(node string) { r.start(node) }})
	r.until("the other one serves", func(s *api.Status) bool { return s.Quorum && PrimaryIs(other(primary))(s) && !isMember(primary)(s) })
	_, errs := r.admin(1, "volume", "verify", "vol")
	r.says(errs, "nothing to compare with")
	r.start(primary)
	r.until("healthy", Healthy)
	if v, _ := r.verify(0); !v.Equal() || v.Primary != other(primary) {
		t.Errorf("%+v", v)
	}
}

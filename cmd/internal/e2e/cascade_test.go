package e2e

import (
	"fmt"
	"testing"

	"hacluster/cmd/internal/api"
)

// A cascade: the far replica is fed by the near standby, and not by the primary, which sends it nothing itself. When the near one is
// lost it is fed directly, until that one is back; after a failover the near one, as primary, feeds it itself (R3, R6).
func TestFarReplicaIsFedByTheStandby(t *testing.T) {
	r := healthy(t, Config{RTO: "4s", Copies: 3, TLS: true, Extra: "  async {\n    max_lag_bytes = \"64MiB\"\n    max_lag = \"10s\"\n    patience = \"60s\"\n  }"})
	const primary, near, far = "alpha", "beta", "gamma"
	via := func(by string) func(*api.Status) bool {
		return func(s *api.Status) bool {
			v := s.Volumes[0]
			return members(3)(s) && v.Primary == primary && replica(s, far).Via == by
		}
	}
	alone := fmt.Sprintf("replica %q { device = %q }", far, r.Disk(far))
	fed := fmt.Sprintf("replica %q {\n    device = %q\n    mode   = \"async\"\n    via    = %q\n  }", far, r.Disk(far), near)
	file := r.edited("fed.hcl", alone, fed, `volume "vol" {`, fmt.Sprintf("link %q %q {\n}\nlink %q %q {\n  compress = \"off\"\n}\nvolume \"vol\" {", primary, far, primary, near))
	out, _ := r.admin(0, "apply", file, "--yes")
	r.says(out, "change online", "replica gamma: via", "directly -> beta")
	r.installApplied()
	if r.vol().Primary != primary {
		r.admin(0, "failover", "vol", "--to", primary)
	}
	l := r.load()
	st := r.until("the far one is fed by the near one", via(near))
	direct, was := replica(st, far).Line.PlainBytes, replica(st, near).Line
	l.more(500)
	st = r.until("it still is", via(near))
	if n := replica(st, far).Line.PlainBytes - direct; n != 0 {
		t.Errorf("%s sent %d bytes to %s itself, which is fed by %s", primary, n, far, near)
	}
	is := replica(st, near).Line
	if plain, sent := is.PlainBytes-was.PlainBytes, is.SentBytes-was.SentBytes; sent > plain*2/3 {
		t.Errorf("%s sent %d bytes to %s for %d of both streams: each payload is to be sent once", primary, sent, near, plain)
	} else {
		t.Logf("%d bytes sent to the near one, for %d of both", sent, plain)
	}
	out, _ = r.admin(0, "status")
	r.says(out, "fed via "+near)

	r.Kill(near)
	r.until("it is fed directly when the near one is lost", func(s *api.Status) bool {
		return members(2)(s) && s.Volumes[0].Primary == primary && isMember(far)(s) && replica(s, far).Via == ""
	})
	l.more(300)
	r.start(near)
	r.until("it is fed by the near one again, now that it is back", via(near))
	l.more(300)

	r.Kill(primary)
	r.until("the near one serves, and feeds it itself", func(s *api.Status) bool {
		return members(2)(s) && s.Volumes[0].Primary == near && isMember(far)(s) && replica(s, far).Via == ""
	})
	l.more(300)
	r.start(primary)
	r.until("all are members", members(3))
	l.more(100)
	l.stop()
	r.same()
}

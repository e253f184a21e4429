package e2e

import (
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
)

var orders = [][]string{
	{"alpha", "beta", "gamma"}, {"alpha", "gamma", "beta"}, {"beta", "alpha", "gamma"},
	{"beta", "gamma", "alpha"}, {"gamma", "alpha", "beta"}, {"gamma", "beta", "alpha"},
}

// A whole cluster that was stopped and is started again becomes healthy by itself, with its data.
func TestWholeClusterStoppedInEachOrder(t *testing.T) {
	r := healthy(t, Config{})
	for _, i := range some(t, 2, 0, 1, 2, 3, 4, 5) {
		l := r.load()
		l.stop()
		before := r.vol().Epoch
		r.stop(orders[i]...)
		r.start(orders[(i+3)%len(orders)]...)
		s := r.until("healthy by itself", Healthy)
		l.check()
		if e := s.Volumes[0].Epoch; e > before+3 {
			t.Errorf("one stop and start moved the volume from epoch %d to %d", before, e)
		}
	}
	r.same()
}

// faults.md K111: all lose power to their processes at once and come back in every order.
func TestK111WholeClusterKilledAndStartedInEachOrder(t *testing.T) {
	r := healthy(t, Config{})
	for _, i := range append(some(t, 1, 0, 2, 4), some(t, 1, 1, 3, 5)...) {
		l := r.load()
		r.Kill(orders[i]...)
		for _, n := range orders[i] {
			r.start(n)
			if i%2 == 1 {
				time.Sleep(400 * time.Millisecond) // staggered: each is up before the next begins
			}
		}
		r.until("healthy by itself", Healthy)
		l.more(20)
		l.stop()
	}
	r.same()
}

// One node alone has no quorum, says so, and serves nothing; with a second one it serves.
func TestOneNodeAloneAfterAStop(t *testing.T) {
	r := healthy(t, Config{})
	l := r.load()
	l.stop()
	last := r.vol().Primary
	r.stop("gamma", other(last), last)
	for _, alone := range []string{last, other(last)} {
		r.start(alone)
		ctx, cancel := r.within()
		s, err := r.Until(ctx, "it answers", func(s *api.Status) bool { return len(s.Volumes) == 1 })
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if s.Quorum || s.Volumes[0].State != "unavailable" || s.Volumes[0].Reason == "" {
			t.Errorf("alone, quorum %t, the volume is %s because %q", s.Quorum, s.Volumes[0].State, s.Volumes[0].Reason)
		}
		out, _ := r.admin(0, "status")
		r.says(out, "quorum no", "unavailable")
		if err := r.refused(alone); !strings.Contains(err, "primary") {
			t.Errorf("alone, a client is told %q", err)
		}
		if _, errs := r.admin(4, "failover", "vol"); !strings.Contains(errs, "quorum") {
			t.Errorf("alone, failover says %q", errs)
		}
		if r.get(alone, "/healthz") != 200 || r.get(alone, "/readyz") != 503 {
			t.Errorf("alone, healthz %d, readyz %d", r.get(alone, "/healthz"), r.get(alone, "/readyz"))
		}
		if alone == last {
			r.stop(alone)
		}
	}
	r.start("gamma")
	r.until("two of three serve", func(s *api.Status) bool { return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == "degraded" })
	l.check()
	r.start(last)
	r.until("healthy", Healthy)
	l.check()
	r.same()
}

// refused is what a client is told by a node that does not serve.
func (r *rig) refused(node string) string {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	c, err := dialDirect(ctx, r.URI(node))
	if err == nil {
		c.Abort()
		r.t.Errorf("%s serves", node)
		return ""
	}
	return err.Error()
}

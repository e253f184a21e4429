package main

import (
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
)

// At three in the morning: what would be lost now, what the bound is, whether writers are slowed and why, what was lost and where
// it is kept.
func TestStatusOfAVolumeInAsync(t *testing.T) {
	loss, age := int64(3<<20), int64(420)
	bound := api.AsyncStatus{MaxLagBytes: 64 << 20, MaxLagMs: 5000, PatienceMs: 10000, Writers: api.WritersFree}
	with := func(change func(v *api.VolumeStatus, a *api.AsyncStatus)) string {
		st, _ := contract(t)
		v, a := &st.Volumes[0], bound
		v.Mode, v.Async = "async", &a
		a.LossBytes, a.LossMs, a.UsedPercent = &loss, &age, 8
		change(v, &a)
		o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: st}))
		o.wantSuccess(t)
		return o.out
	}
	for name, c := range map[string]struct {
		change func(v *api.VolumeStatus, a *api.AsyncStatus)
		want   []string
	}{
		"free": {func(*api.VolumeStatus, *api.AsyncStatus) {}, []string{
			"  async: if alpha were lost now, at most 3 MiB would be, the oldest acknowledged 420ms ago; never more than 64 MiB, acknowledged within 5s\n", "  writers: not slowed, 8 % of the bound is used\n"}},
		"slowed": {func(_ *api.VolumeStatus, a *api.AsyncStatus) {
			a.UsedPercent, a.Writers, a.Reason = 61, api.WritersSlowed, "beta lacks much"
		}, []string{"  writers: slowed, 61 % of the bound is used: beta lacks much\n"}},
		"held": {func(_ *api.VolumeStatus, a *api.AsyncStatus) { a.Writers, a.Reason = api.WritersHeld, "beta is away" }, []string{"  writers: held: beta is away\n"}},
		"alone": {func(_ *api.VolumeStatus, a *api.AsyncStatus) { a.LossBytes, a.LossMs = nil, nil }, []string{
			"  async: if alpha were lost now, no standby would follow without a person's word\n"}},
		"unserved": {func(v *api.VolumeStatus, a *api.AsyncStatus) {
			v.State, a.LossBytes, a.LossMs = api.VolumeUnavailable, nil, nil
		}, []string{"  async: nobody serves; a standby that follows lacks at most 64 MiB, acknowledged within 5s\n"}},
		"left behind": {func(v *api.VolumeStatus, _ *api.AsyncStatus) {
			v.Replicas[1].Rescue = &api.RescueStatus{Images: 1, Bytes: 2 << 20}
		}, []string{"  beta: 1 rescue image, 2 MiB, of what it held and the volume lacks: `ha-admin volume rescue list pgdata`\n"}},
	} {
		for _, want := range c.want {
			if got := with(c.change); !strings.Contains(got, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, got)
			}
		}
	}
	st, _ := contract(t)
	if o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: st})); strings.Contains(o.out, "async") || strings.Contains(o.out, "writers") {
		t.Errorf("of one in sync:\n%s", o.out)
	}
}

// Never less than the truth: what may be lost is the bound, beside it what was heard.
func TestFailoversTellWhatMayBeLost(t *testing.T) {
	f := api.Failover{Volume: "v", From: "alpha", To: "beta", Reason: "lease expired", Epoch: 7, At: time.Unix(0, 0), RTOMs: 640, RTOTargetMs: 3000}
	lag := &api.FailoverLag{Bytes: 1 << 20, Ms: 300, AgeMs: 120}
	for _, c := range []struct {
		bytes, ms         int64
		lag               *api.FailoverLag
		text, column, doc string
	}{
		{0, 0, nil, "met, 0 B lost;", "0 B", `"rpo_bytes": 0`},
		{1 << 30, 0, nil, "at most 1 GiB lost;", "<= 1 GiB ", `"rpo_bytes": 1073741824`},
		{64 << 20, 5000, lag, "at most 64 MiB lost, acknowledged within 5s (alpha said last, 120ms before, that beta lacked 1 MiB, the oldest for 300ms);", "<= 64 MiB, 5s", `"rpo_ms": 5000`},
		{64 << 20, 5000, nil, "at most 64 MiB lost, acknowledged within 5s (alpha had not said how far beta was behind);", "<= 64 MiB, 5s", `"rpo_bytes": 67108864`},
		{-1, -1, nil, "how much is lost is not known (alpha had not said how far beta was behind);", "unknown", `"rpo_bytes": -1`},
		{-1, -1, lag, "how much is lost is not known (alpha said last,", "unknown", `"age_ms": 120`},
	} {
		f.RPOBytes, f.RPOMs, f.Lag = c.bytes, c.ms, c.lag
		if got := failoverText(f); !strings.Contains(got, c.text) {
			t.Errorf("%q is not in %q", c.text, got)
		}
		server := apitest.Serve(t, &apitest.Node{Past: []api.Failover{f}})
		admin(t, "failovers", "--server", server).wantSuccess(t, c.column)
		admin(t, "failovers", "--server", server, "-o", "json").wantSuccess(t, c.doc)
	}
}

package node

import (
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// What an operator reads of a volume that nobody serves: why, and the exact command where a person has to decide (R25).
func TestStatusNamesTheCommandWhereAPersonDecides(t *testing.T) {
	before, after := cluster.Incarnation{Boot: "1", Attachment: "x"}, cluster.Incarnation{Boot: "2", Attachment: "x"}
	vol := &cluster.Volume{Name: "db", Epoch: 3, Primary: "a", Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}},
		Members: map[string]cluster.Member{"a": {Incarnation: before, Process: 1}, "b": {Incarnation: before, Process: 1}}}
	const force = "`ha-admin failover db --to "
	lost := func(r *cluster.Report) { r.Incarnation = after }
	failed := func(r *cluster.Report) { r.Incarnation, r.Failed = after, true }
	same := func(*cluster.Report) {}
	bad := func(r *cluster.Report) { r.Failed = true }
	closed := func(r *cluster.Report) {
		*r = cluster.Report{Volume: "db", Problem: "no such file", Incarnation: after}
	}
	clean := func(r *cluster.Report) {
		r.Incarnation, r.Clean = after, &cluster.Clean{Incarnation: before, Process: 1}
	}
	kept := func(r *cluster.Report) {
		r.Incarnation, r.Unmarked = after, &cluster.Keeper{Boot: before.Boot, Process: 1}
	}
	hangs := func(r *cluster.Report) { r.Incarnation, r.Stalled = after, true }
	for name, c := range map[string]struct {
		a, b   func(*cluster.Report) // nil: it does not answer
		want   string                // in the reason; empty: nothing is asked of a person
		starts bool                  // the absent are asked for
	}{
		"a is away, b lost its memory":       {nil, lost, force + "b --force --accept-data-loss`", true},
		"b is away, a lost its memory":       {lost, nil, force + "a --force --accept-data-loss`", true},
		"a is away, b is unchanged":          {nil, same, "", false},
		"a is away, b stopped cleanly":       {nil, clean, "", false},
		"b is away, a had nothing unflushed": {kept, nil, "", false},
		"both lost it, a hangs":              {hangs, lost, "", false},
		"a is away, b failed":                {nil, bad, force + "b ", true},
		"both lost it":                       {lost, lost, "", false},
		"both lost it, a's disk failed":      {failed, lost, "", false},
		"both lost it, both disks failed":    {failed, failed, force + "a ", false},
		"a lost it, b cannot open its disk":  {closed, closed, "repair one of them", false},
		"both are away":                      {nil, nil, "", true},
		"a failed, b lost it":                {bad, lost, force + "b ", false},
	} {
		v := &view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{}}
		for n, f := range map[string]func(*cluster.Report){"a": c.a, "b": c.b} {
			if f == nil {
				continue
			}
			r := cluster.Report{Volume: "db", Incarnation: before, Process: 2, Epoch: 3, Held: true}
			f(&r)
			v.local[n] = &control.LocalReply{Node: n, Reports: []cluster.Report{r}}
		}
		got := v.notServed(vol)
		if !strings.Contains(got, c.want) || c.want == "" && strings.Contains(got, "--force") || strings.Contains(got, "start those") != c.starts {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// R23: a primary whose disk failed and whose only other member is away. It stays suspended, for that member has what it
// lost; status says so, and by which command a person goes on without it, which is not refused.
func TestStatusOfAFailedPrimaryWhoseStandbyIsAway(t *testing.T) {
	inc := cluster.Incarnation{Boot: "1", Attachment: "x"}
	vol := &cluster.Volume{Name: "db", Epoch: 3, Primary: "a", Process: 1, Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}},
		Members: map[string]cluster.Member{"a": {Incarnation: inc, Process: 1}, "b": {Incarnation: inc, Process: 1}}}
	rep := cluster.Report{Volume: "db", Incarnation: inc, Process: 1, Epoch: 3, Held: true, Failed: true}
	v := &view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{
		"a": {Node: "a", Reports: []cluster.Report{rep}, Serving: []control.Serving{{Volume: "db", Epoch: 3, Suspended: true}}}}}
	s := v.volume(vol)
	if s.State != api.VolumeSuspended || !strings.Contains(s.Reason, "disk of a failed") || !strings.Contains(s.Reason, "b does not answer: start it") ||
		!strings.Contains(s.Reason, "`ha-admin failover db --to a --force --accept-data-loss`") {
		t.Errorf("state %s: %s", s.State, s.Reason)
	}
	if err := mayFailover(v, vol, api.FailoverRequest{Volume: "db", To: "a", Force: true, AcceptDataLoss: true}); err != nil {
		t.Errorf("the command is refused: %v", err)
	}
	if err := mayFailover(v, vol, api.FailoverRequest{Volume: "db", To: "a", Force: true}); err == nil {
		t.Error("taken without consent")
	}
	v.local["a"].Serving[0].Suspended = false
	if err := mayFailover(v, vol, api.FailoverRequest{Volume: "db", To: "a", Force: true, AcceptDataLoss: true}); err == nil {
		t.Error("a primary that serves is promoted by force")
	}
	v.local["b"] = &control.LocalReply{Node: "b", Reports: []cluster.Report{{Volume: "db", Incarnation: inc, Process: 1, Epoch: 3, Held: true}}}
	v.local["a"].Serving[0].Suspended = true
	if s := v.volume(vol); strings.Contains(s.Reason, "--force") {
		t.Errorf("a person is asked although b can take it: %s", s.Reason)
	}
}

// A volume whose replicas hold content at the first start has no role to move, by no word; what it waits for is told, and
// nothing of promotions by force or of resyncs.
func TestVolumeThatWasNeverInUseIsNotFailedOver(t *testing.T) {
	rep := cluster.Report{Volume: "db", Incarnation: cluster.Incarnation{Boot: "1", Attachment: "x"}, Process: 1, Held: true}
	vol := &cluster.Volume{Name: "db", Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}}}
	v := &view{quorum: true, state: cluster.NewState(), local: map[string]*control.LocalReply{
		"a": {Node: "a", Reports: []cluster.Report{rep}}, "b": {Node: "b", Reports: []cluster.Report{rep}}}}
	for _, r := range []api.FailoverRequest{{Volume: "db"}, {Volume: "db", To: "a"}, {Volume: "db", To: "a", Force: true, AcceptDataLoss: true}} {
		err := mayFailover(v, vol, r)
		if api.KindOf(err) != api.KindRefused || !strings.Contains(err.Error(), "never in use") || !strings.Contains(err.Error(), "volume create db --initial-from") {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range v.volume(vol).Replicas {
		if r.Point != nil || r.Reason != "the volume was never in use" {
			t.Errorf("replica of %s: %q, point %+v", r.Node, r.Reason, r.Point)
		}
	}
}

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
)

// asyncBlock is the bound of a test. The patience is longer than a busy machine may keep a daemon from its work, unless it is what is
// tested.
func asyncBlock(bytes, patience string) string {
	return fmt.Sprintf("  async {\n    max_lag_bytes = %q\n    max_lag = \"60s\"\n    patience = %q\n  }", bytes, patience)
}

// inAsync is a healthy cluster whose volume is in async.
func inAsync(t *testing.T, cfg Config) *rig {
	t.Helper()
	cfg.Mode = "async"
	return healthy(t, cfg)
}

// writers is a condition for until.
func writers(how string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].Async != nil && s.Volumes[0].Async.Writers == how
	}
}

// stopped has the standby be a stopped process, with the primary at its bound, and tells how many writes are acknowledged.
func (c *chain) stopped(standby string) int64 {
	c.r.t.Helper()
	c.r.signal(syscall.SIGSTOP, standby)
	ctx, cancel := c.r.within()
	defer cancel()
	return c.stands(ctx)
}

// R13, R19: a primary is killed with as much acknowledged as the bound lets it. What is lost of it is the end of what was
// written, no more than the bound, and what the record says; and it is in a rescue image when the old primary has returned.
func TestAsyncLosesNoMoreThanItsBoundAndKeepsIt(t *testing.T) {
	const bound = 128 << 20 // without a word of the standby half of it is used, which is more than sockets hold
	r := inAsync(t, Config{Extra: asyncBlock("128MiB", "60s")})
	primary := r.vol().Primary
	standby := other(primary)
	c := r.chain(primary, 0)
	c.await(2 * chainSlots)
	acked := c.stopped(standby)
	has := r.writtenOn(standby)
	if lag := (acked - has) * chainWrite; lag > bound {
		t.Fatalf("%d bytes are acknowledged that the standby has not written, the bound is %d", lag, bound)
	}
	if s := r.vol().Async; s == nil || s.MaxLagBytes != bound {
		t.Errorf("status: %+v", s)
	}
	r.Kill(primary)
	c.end()
	acked = c.acked.Load()
	r.signal(syscall.SIGCONT, standby)
	r.until("the standby took over", PrimaryIs(standby))
	dev := r.dial(r.URIs()...)
	kept, err := prefix(dev)
	if err != nil {
		t.Fatalf("after the failover the volume is no prefix of what was written: %v", err)
	}
	lost := (acked - kept) * chainWrite
	if lost <= 0 || lost > bound {
		t.Fatalf("%d bytes are lost, want some, and %d at most", lost, bound)
	}
	f := r.lastFailover()
	if f.From != primary || f.To != standby || f.RPOBytes != bound || f.RPOMs != 60000 || f.RPOBytes < lost {
		t.Errorf("%d bytes are lost, and the record is %+v", lost, f)
	}
	heard := "said last, " // nothing is known of it to who began to lead only then
	if f.Lag == nil {
		heard = "had not said"
	} else if f.Lag.Bytes < lost || f.Lag.Bytes > bound {
		t.Errorf("%d bytes are lost, and the old primary was heard to say %+v", lost, f.Lag)
	}
	t.Logf("%d writes acknowledged, %d kept, %d bytes lost, at most %d; heard last: %+v", acked, kept, lost, f.RPOBytes, f.Lag)
	out, _ := r.admin(0, "failovers")
	r.says(out, "<= 128 MiB, 1m0s")
	out, _ = r.admin(0, "status")
	r.says(out, "at most 128 MiB lost, acknowledged within 1m0s ("+primary+" "+heard, "it may hold acknowledged writes that the others lack")

	if _, err := dev.WriteFUA(stamped(chainBytes/StampSize, 1), chainBytes); err != nil { // the volume goes on
		t.Fatal(err)
	}
	r.start(primary)
	r.until("the old primary is resynced", Healthy)
	all := r.rescued()
	if len(all) != 1 || all[0].Node != primary || !all[0].Whole || all[0].Bytes == 0 {
		t.Fatalf("rescue images %+v, want one of %s", all, primary)
	}
	had, err := prefix(bytes.NewReader(r.export(all[0].ID, "lost.img")))
	if err != nil || had < acked {
		t.Errorf("the rescue image has the first %d writes, %v; %d were acknowledged", had, err, acked)
	}
	out, _ = r.admin(0, "status")
	r.says(out, primary+": 1 rescue image, ", "`ha-admin volume rescue list vol`")
	if now, err := prefix(dev); err != nil || now != kept {
		t.Errorf("after the return the volume has the first %d writes, %v; it had %d", now, err, kept)
	}
	r.same()
}

// lastFailover is the last failover as `ha-admin failovers` tells of it.
func (r *rig) lastFailover() api.Failover {
	r.t.Helper()
	out, _ := r.admin(0, "failovers", "-o", "json")
	var past []api.Failover
	if err := json.Unmarshal([]byte(out), &past); err != nil || len(past) == 0 {
		r.t.Fatalf("%v: %s", err, out)
	}
	return past[len(past)-1]
}

// R13: a standby that hangs slows writers and then holds them, never beyond the bound, also when that is changed meanwhile; after the
// patience it is dropped, writers go on, and it comes back by a resync.
func TestAsyncStandbyThatHangsIsWaitedForThenDropped(t *testing.T) {
	r := inAsync(t, Config{Extra: asyncBlock("2MiB", "30s")})
	primary := r.vol().Primary
	standby := other(primary)
	c := r.chain(primary, 0)
	c.await(2 * chainSlots)
	within := func(acked, bound int64, what string) {
		t.Helper()
		lag := (acked - r.writtenOn(standby)) * chainWrite
		if lag > bound || lag < bound/3 {
			t.Fatalf("%s: %d bytes are acknowledged that the standby has not written, the bound is %d", what, lag, bound)
		}
		s := r.until("writers are held", writers(api.WritersHeld))
		a := s.Volumes[0].Async
		if l := replica(s, standby).LagBytes; l < lag || l > bound || a.MaxLagBytes != bound || !strings.Contains(a.Reason, standby+" lacks ") {
			t.Errorf("%s: the standby lacks %d bytes, and status says %d and %+v", what, lag, l, a)
		}
	}
	acked := c.stopped(standby)
	within(acked, 2<<20, "at the bound")
	out, _ := r.admin(0, "apply", r.edited("more.hcl", `"2MiB"`, `"6MiB"`), "--yes")
	r.says(out, "max_lag_bytes 2MiB, max_lag 1m0s, patience 30s -> max_lag_bytes 6MiB")
	ctx, cancel := r.within()
	defer cancel()
	c.await(acked + 1)
	within(c.stands(ctx), 6<<20, "at a larger bound")
	if told := r.happened(primary, "writers held"); len(told) == 0 {
		t.Error("no event says that writers are held")
	}
	r.admin(0, "apply", r.edited("soon.hcl", `"2MiB"`, `"6MiB"`, `"30s"`, `"1s"`), "--yes")
	c.await(c.acked.Load() + 4*chainSlots) // it was dropped
	told := r.happened(primary, "member dropped")
	if len(told) != 1 || !strings.Contains(told[0], " 6291456 bytes") || !strings.Contains(told[0], " 1s; it is now") {
		t.Errorf("what is said of the drop: %q", told)
	}
	s := r.until("it is out of sync", func(s *api.Status) bool { return s.Quorum && !slices.Contains(s.Volumes[0].InSync, standby) })
	if a := s.Volumes[0].Async; a.LossBytes != nil || a.Writers != api.WritersFree {
		t.Errorf("without a standby: %+v", a)
	}
	r.signal(syscall.SIGCONT, standby)
	r.until("it is resynced", func(s *api.Status) bool { return Healthy(s) && len(r.happened(primary, "member admitted")) > 0 })
	c.end()
	r.same()
	if n := r.writtenOn(standby); n < c.acked.Load() {
		t.Errorf("in the end the standby has the first %d writes of %d", n, c.acked.Load())
	}
}

// R13: the bound in time. Nothing is acknowledged when the oldest that the standby lacks was acknowledged so long ago.
func TestAsyncIsBoundedInTimeToo(t *testing.T) {
	const most = 2 * time.Second
	r := inAsync(t, Config{Extra: strings.Replace(asyncBlock("128MiB", "60s"), `"60s"`, `"2s"`, 1)})
	primary := r.vol().Primary
	standby := other(primary)
	c := r.chain(primary, 5*time.Millisecond)
	c.await(2 * chainSlots)
	r.signal(syscall.SIGSTOP, standby)
	stop := time.Now()
	r.until("writers are held", writers(api.WritersHeld))
	has := r.writtenOn(standby)
	r.Kill(primary)
	c.end()
	if int64(len(c.at)) <= has {
		t.Fatalf("%d writes were acknowledged and the standby has %d: this proves nothing", len(c.at), has)
	}
	// The clock of the client begins later than the primary's, when the answer has come, so it counts less.
	oldest, newest := c.at[has], c.at[len(c.at)-1]
	if d := newest.Sub(oldest); d > most {
		t.Errorf("acknowledged for %v while the standby lacked it, the bound is %v", d, most)
	}
	if newest.Sub(stop) < most/8 {
		t.Errorf("writers went on for %v only after the standby had stopped", newest.Sub(stop))
	}
	t.Logf("%d writes lacked, acknowledged within %v", int64(len(c.at))-has, newest.Sub(oldest))
}

// R30: a hand-over under load loses nothing and leaves nobody behind; whoever is killed is replaced, or dropped and resynced.
func TestAsyncHandsOverWithoutLossAndStandsAKilledStandby(t *testing.T) {
	r := inAsync(t, Config{})
	l := r.load()
	for range 3 {
		l.more(200)
		before := r.vol()
		r.admin(0, "failover", "vol", "--to", other(before.Primary))
		s := r.until("moved", PrimaryIs(other(before.Primary)))
		if got := s.Volumes[0].InSync; len(got) != 2 {
			t.Errorf("after the hand-over in sync: %v", got)
		}
		if f := r.lastFailover(); f.RPOBytes != 0 || f.Lag != nil {
			t.Errorf("a hand-over that lost something: %+v", f)
		}
	}
	standby := other(r.vol().Primary)
	r.Kill(standby)
	l.more(300)
	r.start(standby)
	r.until("the standby is resynced", Healthy)
	l.more(100)
	r.stop(standby)
	r.start(standby)
	r.until("the standby is back", Healthy)
	l.more(100)
	l.stop()
	if all := r.rescued(); len(all) != 0 {
		t.Errorf("nothing was left behind, and there are %+v", all)
	}
	r.same()
}

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
)

// happened counts the events of a kind that the node remembers.
func (r *rig) happened(node, kind string) (texts []string) {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	out, errs, code := r.AdminAt(ctx, r.socket(node), "events", "-o", "json")
	if code != 0 {
		r.t.Fatalf("events of %s: %d %s", node, code, errs)
	}
	for line := range strings.Lines(out) {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatalf("%v: %s", err, line)
		}
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

func TestPausedResyncWaitsThroughRestartsForItsResume(t *testing.T) {
	r := healthy(t, Config{})
	primary := r.vol().Primary
	standby := other(primary)
	dev := r.dial(r.URIs()...)
	var seq uint64
	write := func(block int64) {
		t.Helper()
		seq++
		if _, err := dev.WriteFUA(stamped(block, seq), block*StampSize); err != nil {
			t.Fatal(err)
		}
	}
	r.Kill(standby)
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember(standby)(s) })
	write(1) // nobody writes it again, so the standby lacks it until it is copied
	_, errs := r.admin(1, "volume", "pause", "vol", "--replica", "gamma")
	r.says(errs, "holds no replica")
	r.admin(0, "volume", "pause", "vol", "--replica", standby)
	r.admin(0, "volume", "pause", "vol", "--replica", standby) // twice is no error
	r.start(standby)
	paused := func(s *api.Status) bool {
		rs := replica(s, standby)
		return s.Quorum && (rs.State == api.ReplicaOutOfSync || rs.State == api.ReplicaInconsistent) && rs.DirtyBytes > 0 && rs.Resync == nil &&
			strings.Contains(rs.Reason, "ha-admin volume resume vol")
	}
	r.until("it waits", paused)
	for block := range int64(100) {
		write(100 + block)
	}
	r.Kill(primary)
	r.start(primary)
	r.until("the only member serves again, and it still waits", func(s *api.Status) bool { return paused(s) && PrimaryIs(primary)(s) })
	for block := range int64(100) {
		write(200 + block)
	}
	r.until("still", paused)
	r.admin(0, "volume", "resume", "vol")
	r.until("healthy", Healthy)
	dev.Close()
	for _, kind := range []string{"resync paused", "resync resumed"} {
		if got := r.happened(primary, kind); len(got) != 1 {
			t.Errorf("%s: %q", kind, got)
		}
	}
	r.same()
}

// corrupt changes bytes of a node's disk behind the back of its daemon.
func (r *rig) corrupt(node string, off int64) {
	r.t.Helper()
	f, err := os.OpenFile(r.Disk(node), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("nobody wrote this"), off)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestFullResyncOfAMemberTakesConsentAndComparesAll(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	primary := r.vol().Primary
	standby := other(primary)
	_, errs := r.admin(1, "volume", "resync", "vol", "--replica", primary)
	r.says(errs, "is the primary")
	_, errs = r.admin(1, "volume", "resync", "vol", "--replica", standby)
	r.says(errs, "in sync", "--full")
	_, errs = r.admin(3, "volume", "resync", "vol", "--replica", standby, "--full")
	r.says(errs, "--drop-member", "1 of 2 replicas")
	l := r.load()
	r.corrupt(standby, 40<<20) // nobody knows of it
	r.admin(0, "volume", "resync", "vol", "--replica", standby, "--full", "--drop-member")
	r.until("it is compared and a member again", func(s *api.Status) bool {
		return Healthy(s) && len(r.happened("gamma", "member admitted")) > 0
	})
	l.more(100)
	l.stop()
	if got := r.happened(primary, "full resync asked for"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if begun, ended := r.happened(primary, "resync begun"), r.happened(primary, "resync ended"); len(begun) == 0 || len(ended) == 0 {
		t.Errorf("begun %q, ended %q", begun, ended)
	} else {
		r.says(begun[0], "67108864 bytes", standby)
		r.says(ended[0], standby+" is in sync", "bytes compared", "bytes copied")
	}
	r.same()
}

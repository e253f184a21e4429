package nbd_test

import (
	"testing"

	"hacluster/blockdev/frontend/nbd"
)

func TestLimitsChangeForClientsThatConnectFromThenOn(t *testing.T) {
	r := newRig(t, nbd.Config{})
	first, second := r.session(), r.session()
	first.inStep() // who is answered is counted
	second.inStep()
	if err := r.SetLimits(nbd.Config{MaxConnections: 2, MaxRequestsInFlight: 7}); err != nil {
		t.Fatal(err)
	}
	if l := r.Limits(); l.MaxConnections != 2 || l.MaxRequestsInFlight != 7 || l.MaxOptions != 1024 {
		t.Errorf("the limits are %+v", l)
	}
	if n := r.Clients("vol"); n != 2 || r.Clients("other") != 0 {
		t.Errorf("%d clients of vol, %d of other", n, r.Clients("other"))
	}
	over := r.connect()
	if b := over.wantClosed(); len(b) != 0 {
		t.Fatalf("the third was greeted: %q", b)
	}
	first.inStep()
	second.inStep()
	if err := r.SetLimits(nbd.Config{MaxPayload: 1}); err == nil || r.Limits().MaxConnections != 2 {
		t.Errorf("limits that cannot work: %v, %+v", err, r.Limits())
	}
}

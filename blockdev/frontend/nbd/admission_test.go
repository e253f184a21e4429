package nbd_test

import (
	"testing"
	"time"

	"hacluster/blockdev/frontend/nbd"
)

// The like of faults.md N14, N31: connections that stop in the handshake keep nobody out, those that serve stay.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	r := newRig(t, nbd.Config{MaxConnections: 8, HandshakeTimeout: time.Hour})
	served := []*wire{r.session(), r.session(), r.session()}
	silent := make([]*wire, 100)
	for i := range silent {
		if i%2 == 0 {
			silent[i] = r.greeted()
		} else {
			silent[i] = r.connect()
		}
	}
	late := r.session()
	late.inStep()
	for _, w := range served {
		w.inStep()
	}
	if s := r.Stats(); s.Connections > 8 || s.Refused < 90 {
		t.Errorf("%+v", s)
	}
	for _, w := range silent[:80] {
		w.wantClosed()
	}
	for _, w := range silent {
		w.nc.Close()
	}
	late.nc.Close()
	for _, w := range served {
		w.nc.Close()
	}
	eventually(t, "every place is given back once", func() bool { return r.Stats().Connections == 0 })
}

package nbd_test

import (
	"context"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// gateTap says when somebody has to wait at the gate.
type gateTap struct {
	*tapExport
	asked chan struct{}
}

func (e *gateTap) Gate(ctx context.Context) error {
	if !e.TryGate() {
		e.asked <- struct{}{}
	}
	return e.Export.Gate(ctx)
}

// R11, faults.md N38: a write that waits for the lease is not admitted when its client has left meanwhile: it may have
// read the old content by another connection.
func TestRequestWaitingForTheLeaseIsDiscardedWithItsConnection(t *testing.T) {
	e := &gateTap{&tapExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0)}, make(chan struct{}, 1)}
	submitted := make(chan *blockdev.Request, 8)
	e.tap = func(r *blockdev.Request) { submitted <- r }
	r := newRigTap(t, e)
	w := r.session()
	e.Suspend()
	// What follows the first request keeps the end of the connection out of the reader's sight.
	w.write(append(req(nbdproto.CmdWrite, 0, 1, 0, 4096, pattern(4096, 1)...), req(nbdproto.CmdRead, 0, 2, 0, 4096)...))
	<-e.asked
	w.nc.Close()
	e.Resume()
	r.untilNobody()
	if len(submitted) != 0 {
		t.Fatalf("%d requests of a closed connection were admitted", len(submitted))
	}
	r.serves()
}

// A volume that keeps a request back can tell when its client has left, and gives it back unanswered.
func TestRequestKnowsThatItsConnectionIsGone(t *testing.T) {
	r, _, held := holding(t, blockdev.OpWrite)
	w := r.session()
	w.write(req(nbdproto.CmdWrite, 0, 1, 0, 4096, pattern(4096, 1)...))
	q := <-held
	if q.Abandoned() {
		t.Fatal("abandoned, with its client there")
	}
	w.nc.Close()
	if !q.Abandoned() {
		t.Fatal("not abandoned, with its client gone")
	}
	q.Err = blockdev.ErrAbandoned
	q.Done(q)
	r.untilNobody()
	if s := r.Stats(); s.BytesInFlight != 0 {
		t.Fatalf("not given back: %+v", s)
	}
}

// A client that only ends its own half learns by the end of the connection that the outcome is unknown.
func TestAbandonedRequestIsNotAnswered(t *testing.T) {
	r, _, held := holding(t, blockdev.OpWrite)
	w := r.session()
	w.write(req(nbdproto.CmdWrite, 0, 1, 0, 4096, pattern(4096, 1)...))
	q := <-held
	w.nc.(interface{ CloseWrite() error }).CloseWrite()
	if !q.Abandoned() {
		t.Fatal("not abandoned")
	}
	q.Err = blockdev.ErrAbandoned
	q.Done(q)
	if out := w.wantClosed(); len(out) != 0 {
		t.Fatalf("answered %d bytes", len(out))
	}
}

func (r *rig) untilNobody() {
	r.t.Helper()
	eventually(r.t, "nobody is connected", func() bool { return r.Stats().Connections == 0 })
}

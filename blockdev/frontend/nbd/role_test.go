package nbd_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

func contains(s, sub string) bool { return strings.Contains(s, sub) }

func TestN36StandbyRefusesAndNamesThePrimary(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.greeted()
	for _, o := range []nbdproto.Option{nbdproto.OptInfo, nbdproto.OptGo} {
		w.option(o, goData("other"))
		if text := w.want(nbdproto.RepErrPolicy); !contains(string(text), `"beta"`) {
			t.Errorf("option %d: %q does not name the primary", o, text)
		}
	}
	w.option(nbdproto.OptExportName, []byte("other"))
	if b := w.wantClosed(); len(b) != 0 {
		t.Fatalf("EXPORT_NAME was answered with %d bytes", len(b))
	}
	r.serves()
}

func TestN37FlushOfOneClientCoversTheOthersWrites(t *testing.T) {
	var log []string
	e := &tapExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0)}
	done := make(chan string, 10)
	e.tap = func(r *blockdev.Request) { done <- r.Op.String() }
	r := newRigTap(t, e)
	a, b := r.client(), r.client()
	if a.Flags()&nbdproto.CanMultiConn == 0 {
		t.Fatal("multi-conn is not promised")
	}
	if _, err := a.WriteAt(pattern(4096, 1), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil { // must reach the volume, which knows nothing of connections
		t.Fatal(err)
	}
	for len(log) < 2 {
		log = append(log, <-done)
	}
	if got := strings.Join(log, " "); got != "write flush" {
		t.Fatalf("the volume saw %q", got)
	}
}

// holding is a rig whose volume keeps requests of the given kind until the test gives them back.
func holding(t *testing.T, op blockdev.Op) (*rig, *tapExport, chan *blockdev.Request) {
	held := make(chan *blockdev.Request, 200)
	e := &tapExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0), hold: func(r *blockdev.Request) bool {
		if r.Op == op {
			held <- r
		}
		return r.Op == op
	}}
	return newRigTap(t, e), e, held
}

func TestN38ConnectionDiesWithoutAnAnswerWhenTheRoleMoves(t *testing.T) {
	r, e, held := holding(t, blockdev.OpWrite)
	w := r.session()
	w.write(req(nbdproto.CmdWrite, 0, 1, 0, 4096, pattern(4096, 1)...))
	q := <-held
	e.Move()
	if out := w.wantClosed(); len(out) != 0 {
		t.Fatalf("answered %d bytes after the role moved", len(out))
	}
	eventually(t, "the connection has ended although its request has not", func() bool {
		return r.Stats() == nbd.Stats{}
	})
	q.Done(q) // late: the volume learnt the outcome after all
	if s := r.Stats(); s.BytesInFlight != 0 {
		t.Fatalf("given back twice: %+v", s)
	}
}

func TestN38AnswersThatAreReadyButNotGatedAreDropped(t *testing.T) {
	r, e, held := holding(t, blockdev.OpRead)
	w := r.session()
	w.write(append(req(nbdproto.CmdRead, 0, 1, 0, 4096), req(nbdproto.CmdRead, 0, 2, 0, 4096)...))
	q1, q2 := <-held, <-held
	e.Suspend()
	q1.Done(q1) // ready, but without a lease it waits
	e.Move()
	q2.Done(q2)
	if out := w.wantClosed(); len(out) != 0 {
		t.Fatalf("answered %d bytes", len(out))
	}
}

func TestN38NewClientIsServedByTheNewPrimary(t *testing.T) {
	r := newRig(t, nbd.Config{})
	old := r.client()
	if _, err := old.WriteAt(pattern(4096, 1), 0); err != nil {
		t.Fatal(err)
	}
	r.exports.Leave("vol", "beta")
	<-old.Lost()
	w := r.greeted()
	w.option(nbdproto.OptGo, goData("vol"))
	w.want(nbdproto.RepErrPolicy)
	next := nbdtest.SyncExport(r.dev, 1)
	defer next.Close()
	r.exports.Serve("vol", next)
	w.mustGo("vol") // on the same connection: a refusal leaves it in step
	w.inStep()
	w.nc.Close()
	eventually(t, "the connection has ended", func() bool { return r.Stats().Connections == 0 })
}

func TestSuspendedVolumeAdmitsAndAnswersNothingAndResumesWithoutError(t *testing.T) { // R11
	var submitted atomic.Int32
	held := make(chan *blockdev.Request, 1)
	e := &tapExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0)}
	e.tap = func(*blockdev.Request) { submitted.Add(1) }
	e.hold = func(r *blockdev.Request) bool {
		if r.Op == blockdev.OpFlush {
			held <- r
			return true
		}
		return false
	}
	r := newRigTap(t, e)
	w := r.session()
	w.write(req(nbdproto.CmdFlush, 0, 1, 0, 0))
	q := <-held
	e.Suspend()
	q.Done(q)
	w.write(req(nbdproto.CmdWrite, 0, 2, 0, 4096, pattern(4096, 1)...))
	w.wantSilence(100 * time.Millisecond)
	if n := submitted.Load(); n != 1 {
		t.Fatalf("%d requests admitted", n)
	}
	e.Resume()
	w.wantErrno(nbdproto.OK, 1)
	w.wantErrno(nbdproto.OK, 2)
}

// wantSilence fails the test if anything arrives in that time.
func (w *wire) wantSilence(d time.Duration) {
	w.t.Helper()
	w.nc.SetReadDeadline(time.Now().Add(d))
	defer w.nc.SetReadDeadline(time.Now().Add(patience))
	if n, err := w.nc.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatalf("got %d bytes, %v", n, err)
	}
}

// available reads what arrives until nothing has for a while.
func (w *wire) available() int {
	w.t.Helper()
	total := 0
	for b := make([]byte, 1<<20); ; {
		w.nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := w.nc.Read(b)
		total += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.nc.SetDeadline(time.Now().Add(patience))
			return total
		}
		if err != nil {
			w.t.Fatalf("after %d bytes: %v", total, err)
		}
	}
}

func TestAnswerHeldUpByItsReaderAsksTheGateAgain(t *testing.T) { // R11: directly before the reply
	r := newRig(t, nbd.Config{})
	w := r.session()
	const n = 12 << 20
	w.write(req(nbdproto.CmdRead, 0, 1, 0, n))
	w.read(nbdproto.SimpleLen) // the answer has begun; the rest does not fit in the socket
	r.export.Suspend()
	got := w.available()
	if got >= n {
		t.Fatal("the whole answer arrived although the lease ended in its middle")
	}
	r.export.Resume()
	w.read(n - got)
	w.inStep()
}

func TestAnswerHeldUpByItsReaderEndsWhenTheRoleMoves(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	const n = 12 << 20
	w.write(req(nbdproto.CmdRead, 0, 1, 0, n))
	w.read(nbdproto.SimpleLen)
	r.export.Move()
	eventually(t, "the connection has ended", func() bool { return r.Stats() == nbd.Stats{} })
	if out := w.wantClosed(); len(out) >= n {
		t.Fatal("the whole answer arrived")
	}
}

// blockingGate hides TryGate, as an export without it.
type blockingGate struct{ nbd.Export }

func TestExportWithoutTryGate(t *testing.T) {
	e := nbdtest.SyncExport(nbdtest.NewMem(testSize), 2)
	defer e.Close()
	r := newRigTap(t, blockingGate{e})
	c := r.client()
	p := pattern(2<<20, 3)
	if _, err := c.WriteAt(p, 100); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if _, err := c.ReadAt(got, 100); err != nil || !bytes.Equal(got, p) {
		t.Fatalf("read back differs (%v)", err)
	}
	e.Suspend()
	k := c.Start(clientOp(nbdproto.CmdFlush, 0, 0, 0))
	select {
	case <-k.Done():
		t.Fatal("answered while suspended")
	case <-time.After(50 * time.Millisecond):
	}
	e.Move()
	<-c.Lost()
}

func TestRequestsOfAClientThatLeftStayWithTheVolume(t *testing.T) {
	r, _, held := holding(t, blockdev.OpWrite)
	w := r.session()
	w.write(req(nbdproto.CmdWrite, 0, 1, 0, 4096, pattern(4096, 7)...))
	q := <-held
	w.nc.Close()
	r.serves()
	if s := r.Stats(); s.Connections < 1 || s.BytesInFlight < 4096 {
		t.Fatalf("the request's memory is not counted any more: %+v", s)
	}
	if !bytes.Equal(q.Buf.Bytes(), pattern(4096, 7)) {
		t.Fatal("the payload changed under the volume")
	}
	q.Done(q)
	eventually(t, "the connection has ended", func() bool { return r.Stats() == nbd.Stats{} })
}

func TestHalfClosedClientGetsItsAnswers(t *testing.T) {
	r, _, held := holding(t, blockdev.OpFlush)
	w := r.session()
	w.write(req(nbdproto.CmdFlush, 0, 1, 0, 0))
	q := <-held
	if err := w.nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	q.Done(q)
	w.wantErrno(nbdproto.OK, 1)
	if _, err := w.nc.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("then: %v", err)
	}
}

package nbd_test

import (
	"io"
	"net"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// flood sends reads until the server takes no more.
func flood(w *wire, n int, size uint32) {
	var b []byte
	for i := range n {
		b = append(b, req(nbdproto.CmdRead, 0, uint64(i), 0, size)...)
	}
	go w.push(b)
}

func TestN30ReaderThatNeverReadsIsCappedAndClosed(t *testing.T) {
	t.Parallel() // it waits
	const perConn = 4 << 20
	r := newRig(t, nbd.Config{MaxConnBytesInFlight: perConn, SlowReaderTimeout: time.Second})
	w := r.session()
	flood(w, 1000, 1<<20)
	eventually(t, "the server holds answers", func() bool { return r.Stats().BytesInFlight >= perConn/2 })
	good := r.client()
	for range 100 {
		if _, err := good.ReadAt(make([]byte, 64<<10), 0); err != nil {
			t.Fatal(err)
		}
		if n := r.Stats().BytesInFlight; n > perConn+64<<10 {
			t.Fatalf("%d bytes in flight", n)
		}
	}
	eventually(t, "the reader is closed", func() bool { return r.Stats().Connections == 1 })
	if n := r.Stats().BytesInFlight; n != 0 {
		t.Fatalf("%d bytes are held", n)
	}
}

func TestN30ManyReadersThatNeverReadLeaveRoomForOthers(t *testing.T) {
	const total = 8 << 20
	r := newRig(t, nbd.Config{MaxBytesInFlight: total, MaxConnBytesInFlight: 4 << 20})
	for range 8 {
		flood(r.session(), 100, 1<<20)
	}
	eventually(t, "the memory is used up", func() bool { return r.Stats().BytesInFlight >= total-1<<20 })
	good := r.client()
	for i := range 100 {
		if _, err := good.WriteAt(pattern(128<<10, byte(i)), 0); err != nil {
			t.Fatal(err)
		}
		if n := r.Stats().BytesInFlight; n > total+9*256<<10 { // the guaranteed share of each connection on top
			t.Fatalf("%d bytes in flight", n)
		}
	}
}

func TestN30SlowButSteadyReaderIsNotClosed(t *testing.T) {
	t.Parallel()                                                   // it waits
	r := newRig(t, nbd.Config{SlowReaderTimeout: 2 * time.Second}) // far beyond any pause of a loaded machine
	w := r.session()
	const n, times = 2 << 20, 3
	w.write(repeat(req(nbdproto.CmdRead, 0, 1, 0, n), times))
	// Takes a little, many times within the timeout, for longer than the timeout in all.
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for got := 0; got < times*(n+nbdproto.SimpleLen); <-tick.C {
		k, err := io.ReadAtLeast(w.nc, make([]byte, 96<<10), 1)
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		got += k
	}
	flood(r.session(), 100, 1<<20)
	eventually(t, "one that does not read at all is closed", func() bool { return r.Stats().Connections == 1 })
	w.inStep() // as long after its last wait
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	const limit = 8
	held := make(chan *blockdev.Request, 100)
	e := &tapExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0), hold: func(r *blockdev.Request) bool {
		held <- r
		return true
	}}
	r := newRigTapWith(t, nbd.Config{MaxRequestsInFlight: limit}, e)
	w := r.session()
	var b []byte
	for i := range 50 {
		b = append(b, req(nbdproto.CmdFlush, 0, uint64(i), 0, 0)...)
	}
	w.write(b)
	for done := range 50 {
		q := <-held
		eventually(t, "the window is full", func() bool { return len(held) == min(limit-1, 49-done) })
		q.Done(q)
		w.wantErrno(nbdproto.OK, uint64(done))
	}
}

func TestN31TwoHundredConnectionsAndTheLimit(t *testing.T) {
	r := newRig(t, nbd.Config{MaxConnections: 200})
	var ws []*wire
	for range 200 {
		ws = append(ws, r.session())
	}
	for _, w := range ws {
		w.inStep()
	}
	over := r.connect()
	if b := over.wantClosed(); len(b) != 0 {
		t.Fatalf("the 201st was greeted: %q", b)
	}
	if n := r.Stats().Refused; n != 1 {
		t.Errorf("%d connections are counted as refused", n)
	}
	ws[0].nc.Close()
	eventually(t, "a place is free", func() bool { return r.Stats().Connections < 200 })
	r.serves()
	ws[1].inStep()
}

func TestN32SilenceBetweenRequestsIsFineWithinOneIsNot(t *testing.T) {
	t.Parallel() // it waits
	r := newRig(t, nbd.Config{StallTimeout: 300 * time.Millisecond})
	idle := r.session()
	header, payload, begun := r.session(), r.session(), r.session()
	header.write(req(nbdproto.CmdRead, 0, 1, 0, 4096)[:13])
	payload.write(req(nbdproto.CmdWrite, 0, 1, 0, 1<<20, pattern(5000, 1)...))
	begun.write(req(nbdproto.CmdWrite, 0, 1, 0, 4096)) // nothing of the payload
	r.serves()
	header.wantClosed()
	payload.wantClosed()
	begun.wantClosed()
	idle.inStep() // silent for as long
	if !zeroes(r.dev.Snapshot()) {
		t.Fatal("something was written")
	}
}

func TestN32StallEndsWhenTheRequestIsComplete(t *testing.T) {
	t.Parallel()                                              // it waits
	r := newRig(t, nbd.Config{StallTimeout: 2 * time.Second}) // far beyond any pause of a loaded machine
	slow, idle := r.session(), r.session()
	b := req(nbdproto.CmdWrite, 0, 1, 0, 64<<10, pattern(64<<10, 1)...)
	slow.write(b[:40<<10]) // arms the timeout
	slow.write(b[40<<10:])
	slow.wantErrno(nbdproto.OK, 1)
	stalled := r.session()
	stalled.write(b[:20])
	stalled.wantClosed() // as long as the timeout takes
	slow.inStep()
	idle.inStep()
}

func TestSilentPeersCostNoBuffersBeforeTheyAreChecked(t *testing.T) {
	r := newRig(t, nbd.Config{})
	for range 50 {
		w := r.session()
		w.write(req(nbdproto.CmdWrite, 0, 1, testSize, 32<<20)) // a lie, and no payload
	}
	r.serves()
	if n := r.Stats().BytesInFlight; n != 0 {
		t.Fatalf("%d bytes are held for writes that will be refused", n)
	}
}

func TestServerCloseEndsEverything(t *testing.T) {
	r := newRig(t, nbd.Config{})
	ws := []*wire{r.connect(), r.greeted(), r.session(), r.structured()}
	flood(ws[2], 100, 1<<20)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, w := range ws {
		w.wantClosed()
	}
	if s := r.Stats(); s.Connections != 0 || s.BytesInFlight != 0 {
		t.Fatalf("left behind: %+v", s)
	}
	if _, err := net.Dial(r.addr.Network(), r.addr.String()); err == nil {
		t.Fatal("the listener is open")
	}
	if err := r.Server.Serve(t.Context(), fakeListener{}); err == nil {
		t.Fatal("Serve after Close")
	}
}

type fakeListener struct{ net.Listener }

func (fakeListener) Close() error { return nil }

func TestConfigNamesEachBadField(t *testing.T) {
	err := nbd.Config{MaxConnections: -1, MaxPayload: 1 << 30, MaxOptionLen: 10}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"MaxConnections is -1", "MaxPayload is 1073741824", "MaxOptionLen is 10"} {
		if !contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if err := (nbd.Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

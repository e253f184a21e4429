package nbdclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	testSize = 4 << 20
)

var quiet = slog.New(slog.DiscardHandler)

// node is a server of one volume, "vol", on a unix socket.
type node struct {
	*nbd.Server
	exports *nbdtest.Exports
	socket  string
	ended   chan error
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{exports: nbdtest.NewExports(), socket: filepath.Join(t.TempDir(), "s"), ended: make(chan error, 1)}
	n.exports.Leave("vol", "elsewhere")
	l, err := net.Listen("unix", n.socket)
	if err != nil {
		t.Fatal(err)
	}
	if n.Server, err = nbd.New(n.exports, nbd.Config{Log: quiet}); err != nil {
		t.Fatal(err)
	}
	go func() { n.ended <- n.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		n.Close()
		if err := <-n.ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return n
}

func (n *node) uri() string { return "nbd+unix:///vol?socket=" + n.socket }

// lead makes the node the primary, serving dev, for the rest of the test or until Leave.
func (n *node) lead(t testing.TB, dev blockdev.Device) *nbdtest.Export {
	e := nbdtest.SyncExport(dev, 4)
	n.exports.Serve("vol", e)
	t.Cleanup(e.Close)
	return e
}

func dial(t testing.TB, cfg nbdclient.Config, uri string) *nbdclient.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := cfg.Dial(ctx, uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func fill(n int, seed byte) []byte { return bytes.Repeat([]byte{seed}, n) }

func TestDeviceCalls(t *testing.T) {
	for name, cfg := range map[string]nbdclient.Config{"structured": {}, "simple": {Simple: true}} {
		t.Run(name, func(t *testing.T) {
			n, dev := newNode(t), nbdtest.NewMem(testSize)
			n.lead(t, dev)
			c := dial(t, cfg, n.uri())
			if c.Size() != testSize || c.Flags()&nbdproto.SendFUA == 0 {
				t.Fatalf("size %d flags %#x", c.Size(), c.Flags())
			}
			if k, err := c.WriteAt(fill(10000, 1), 5); k != 10000 || err != nil {
				t.Fatal(k, err)
			}
			if k, err := c.WriteFUA(fill(4096, 2), 8192); k != 4096 || err != nil {
				t.Fatal(k, err)
			}
			if err := errors.Join(c.Flush(), c.Zero(blockdev.Range{Off: 100, Len: 50}, true), c.Trim(blockdev.Range{Off: 200, Len: 50}, 0)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, testSize)
			if k, err := c.ReadAt(got, 0); k != testSize || err != nil || !bytes.Equal(got, dev.Snapshot()) {
				t.Fatalf("%d %v, or the content differs", k, err)
			}
			if n := dev.Counts(); n.FUAs != 1 || n.Flushes != 1 || n.Zeroes != 2 {
				t.Fatalf("the device saw %+v", n)
			}
			_, err := c.BlockStatus(blockdev.Range{Len: testSize})
			if cfg.Simple != errors.Is(err, nbdproto.EINVAL) {
				t.Fatalf("block status: %v", err)
			}
		})
	}
}

func TestRangesOutsideAreRefusedBeforeSending(t *testing.T) {
	n, dev := newNode(t), nbdtest.NewMem(testSize)
	n.lead(t, dev)
	c := dial(t, nbdclient.Config{}, n.uri())
	_, err1 := c.ReadAt(make([]byte, 2), testSize-1)
	_, err2 := c.WriteAt(make([]byte, 2), -1)
	err3 := c.Zero(blockdev.Range{Off: 0, Len: testSize + 1}, true)
	for i, err := range []error{err1, err2, err3} {
		if !errors.Is(err, blockdev.ErrRange) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestErrorNumbersAreTyped(t *testing.T) {
	n, dev := newNode(t), nbdtest.NewMem(testSize)
	dev.Fail = func(op blockdev.Op, _ blockdev.Range) error {
		return map[blockdev.Op]error{blockdev.OpWrite: blockdev.ErrNoSpace, blockdev.OpRead: errors.New("medium error")}[op]
	}
	n.lead(t, dev)
	c := dial(t, nbdclient.Config{}, n.uri())
	_, err := c.WriteAt(make([]byte, 512), 512)
	var op *nbdclient.OpError
	if !errors.As(err, &op) || op.Errno != nbdproto.ENOSPC || op.Range.Off != 512 || !errors.Is(err, blockdev.ErrNoSpace) {
		t.Fatalf("write: %v", err)
	}
	if _, err := c.ReadAt(make([]byte, 512), 0); !errors.Is(err, nbdproto.EIO) {
		t.Fatalf("read: %v", err)
	}
	if err := c.Flush(); err != nil {
		t.Fatalf("the connection is out of step: %v", err)
	}
}

func TestStandbyIsATypedRefusal(t *testing.T) {
	n := newNode(t)
	_, err := nbdclient.Dial(t.Context(), n.uri())
	var refused *nbdclient.ExportError
	if !errors.As(err, &refused) || !errors.Is(err, blockdev.ErrNotPrimary) {
		t.Fatalf("%v", err)
	}
	_, err = nbdclient.Dial(t.Context(), "nbd+unix:///nosuch?socket="+n.socket)
	if !errors.As(err, &refused) || refused.Rep != nbdproto.RepErrUnknown || errors.Is(err, blockdev.ErrNotPrimary) {
		t.Fatalf("%v", err)
	}
}

func TestManyGoroutinesShareAConnection(t *testing.T) {
	n, dev := newNode(t), nbdtest.NewMem(testSize)
	n.lead(t, dev)
	c := dial(t, nbdclient.Config{Window: 8}, n.uri())
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			off := int64(g) * 64 << 10
			for i := range 20 {
				p := fill(4096+i*100, byte(g*20+i))
				if _, err := c.WriteAt(p, off); err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(p))
				if _, err := c.ReadAt(got, off); err != nil || !bytes.Equal(got, p) {
					t.Errorf("goroutine %d round %d: read back differs (%v)", g, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWindowBoundsWhatIsInFlight(t *testing.T) {
	n := newNode(t)
	e := n.lead(t, nbdtest.NewMem(testSize))
	c := dial(t, nbdclient.Config{Window: 3}, n.uri())
	e.Suspend()
	var calls []*nbdclient.Call
	for range 3 {
		calls = append(calls, c.Start(nbdclient.Op{Cmd: nbdproto.CmdFlush}))
	}
	fourth := make(chan *nbdclient.Call)
	go func() { fourth <- c.Start(nbdclient.Op{Cmd: nbdproto.CmdFlush}) }()
	select {
	case <-fourth:
		t.Fatal("a fourth request was sent")
	case <-time.After(50 * time.Millisecond):
	}
	e.Resume()
	for _, k := range append(calls, <-fourth) {
		if err := k.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLostConnectionMeansUnknownOutcome(t *testing.T) {
	n := newNode(t)
	e := n.lead(t, nbdtest.NewMem(testSize))
	c := dial(t, nbdclient.Config{Window: 2}, n.uri())
	e.Suspend()
	errs := make(chan error)
	for range 4 { // two in flight, two that wait for the window
		go func() {
			_, err := c.WriteAt(fill(4096, 1), 0)
			errs <- err
		}()
	}
	e.Move()
	for range 4 {
		if err := <-errs; !errors.Is(err, nbdclient.ErrConnectionLost) {
			t.Errorf("%v", err)
		}
	}
	if err := c.Flush(); !errors.Is(err, nbdclient.ErrConnectionLost) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestCloseWaitsForAnswersButNotForEver(t *testing.T) {
	n := newNode(t)
	e := n.lead(t, nbdtest.NewMem(testSize))
	c := dial(t, nbdclient.Config{CloseTimeout: 50 * time.Millisecond}, n.uri())
	e.Suspend()
	k := c.Start(nbdclient.Op{Cmd: nbdproto.CmdFlush})
	c.Close()
	if err := k.Wait(); !errors.Is(err, nbdclient.ErrConnectionLost) {
		t.Fatalf("%v", err)
	}
	e.Resume()
	good := dial(t, nbdclient.Config{}, n.uri())
	k = good.Start(nbdclient.Op{Cmd: nbdproto.CmdFlush})
	good.Close()
	if err := k.Wait(); err != nil {
		t.Fatalf("a request before Close: %v", err)
	}
}

func TestURIs(t *testing.T) {
	for _, bad := range []string{"", "http://x/y", "nbd+unix:///vol", "nbd://%zz/"} {
		if _, err := nbdclient.Dial(t.Context(), bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	dev := nbdtest.NewMem(testSize)
	n := newNode(t)
	n.lead(t, dev)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go n.Serve(context.Background(), l)
	c := dial(t, nbdclient.Config{}, fmt.Sprintf("nbd://%s/vol", l.Addr()))
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPipelined(b *testing.B) {
	n := newNode(b)
	n.lead(b, nbdtest.NewMem(testSize))
	c := dial(b, nbdclient.Config{}, n.uri())
	p := make([]byte, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	var last *nbdclient.Call
	for i := range b.N {
		off := int64(i%1024) * 4096
		last = c.Start(nbdclient.Op{Cmd: nbdproto.CmdWrite, Range: blockdev.Range{Off: off, Len: 4096}, Data: p})
	}
	if err := last.Wait(); err != nil {
		b.Fatal(err)
	}
}

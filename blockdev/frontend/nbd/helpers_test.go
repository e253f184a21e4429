package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
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

// patience is how long a test waits for what must happen; nothing in a passing test takes that long.
const patience = 20 * time.Second

// patienceNever is no deadline.
var patienceNever time.Time

const testSize = 16 << 20

// rig is a server with one volume, "vol", on a unix socket; "other" is a volume whose primary is beta.
type rig struct {
	*nbd.Server
	t       testing.TB
	exports *nbdtest.Exports
	dev     *nbdtest.Mem
	export  *nbdtest.Export
	addr    net.Addr
}

func newRig(t testing.TB, cfg nbd.Config) *rig {
	t.Helper()
	dev := nbdtest.NewMem(testSize)
	return newRigOn(t, cfg, dev, nbdtest.SyncExport(dev, 4))
}

func newRigOn(t testing.TB, cfg nbd.Config, dev *nbdtest.Mem, e *nbdtest.Export) *rig {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return newRigOver(t, cfg, dev, e, l)
}

func newRigOver(t testing.TB, cfg nbd.Config, dev *nbdtest.Mem, e *nbdtest.Export, l net.Listener) *rig {
	t.Helper()
	exports := nbdtest.NewExports()
	exports.Serve("vol", e)
	exports.Leave("other", "beta")
	t.Cleanup(e.Close)
	r := serveOn(t, cfg, exports, l)
	r.exports, r.dev, r.export = exports, dev, e
	return r
}

// serveOn runs a server until the test ends.
func serveOn(t testing.TB, cfg nbd.Config, exports nbd.Exports, l net.Listener) *rig {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := nbd.New(exports, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &rig{Server: s, t: t, addr: l.Addr()}
}

func (r *rig) uri(export string) string {
	if r.addr.Network() == "unix" {
		return "nbd+unix:///" + export + "?socket=" + r.addr.String()
	}
	return "nbd://" + r.addr.String() + "/" + export
}

// client connects a good client.
func (r *rig) client() *nbdclient.Client {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := nbdclient.Dial(ctx, r.uri("vol"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// serves fails the test unless a new client is served.
func (r *rig) serves() {
	r.t.Helper()
	c := r.client()
	if _, err := c.ReadAt(make([]byte, 4096), 0); err != nil {
		r.t.Fatalf("another client is not served: %v", err)
	}
	c.Close()
}

// wire is a client that says exactly what a test wants.
type wire struct {
	t  testing.TB
	nc net.Conn
}

// connect opens a connection without saying anything.
func (r *rig) connect() *wire {
	r.t.Helper()
	nc, err := net.Dial(r.addr.Network(), r.addr.String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &wire{t: r.t, nc: nc}
}

// greeted returns a connection in the option phase.
func (r *rig) greeted() *wire {
	r.t.Helper()
	w := r.connect()
	w.read(18)
	w.write(binary.BigEndian.AppendUint32(nil, 3))
	return w
}

// session returns a connection in the transmission phase, with simple replies.
func (r *rig) session() *wire {
	r.t.Helper()
	w := r.greeted()
	w.mustGo("vol")
	return w
}

// structured returns a connection in the transmission phase, with structured replies and base:allocation.
func (r *rig) structured() *wire {
	r.t.Helper()
	w := r.greeted()
	w.option(nbdproto.OptStructuredReply, nil)
	w.want(nbdproto.RepAck)
	w.option(nbdproto.OptSetMetaContext, metaData("vol", nbdproto.BaseAllocation))
	w.want(nbdproto.RepMetaContext)
	w.want(nbdproto.RepAck)
	w.mustGo("vol")
	return w
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	if _, err := w.nc.Write(b); err != nil {
		w.t.Fatalf("write: %v", err)
	}
}

// push writes to a server that may hang up meanwhile.
func (w *wire) push(b []byte) { w.nc.Write(b) }

func (w *wire) read(n int) []byte {
	w.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(w.nc, b); err != nil {
		w.t.Fatalf("read: %v", err)
	}
	return b
}

// wantClosed fails the test unless the server hangs up; what it says before is returned.
func (w *wire) wantClosed() []byte {
	w.t.Helper()
	b, err := io.ReadAll(w.nc)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatal("the server did not hang up")
	}
	return b
}

func (w *wire) option(o nbdproto.Option, data []byte) {
	w.t.Helper()
	w.write(nbdproto.AppendOption(nil, o, data))
}

func (w *wire) reply() (nbdproto.OptReplyHeader, []byte) {
	w.t.Helper()
	h := nbdproto.ParseOptReply(w.read(nbdproto.OptReplyLen))
	if h.Magic != nbdproto.MagicOptReply {
		w.t.Fatalf("answer to an option has magic %#x", h.Magic)
	}
	return h, w.read(int(h.Len))
}

func (w *wire) want(rep nbdproto.Rep) []byte {
	w.t.Helper()
	h, data := w.reply()
	if h.Rep != rep {
		w.t.Fatalf("answer to option %d is %#x %q, want %#x", h.Option, uint32(h.Rep), data, uint32(rep))
	}
	return data
}

func (w *wire) mustGo(export string) {
	w.t.Helper()
	w.option(nbdproto.OptGo, goData(export))
	for {
		h, data := w.reply()
		if h.Rep == nbdproto.RepAck {
			return
		}
		if h.Rep != nbdproto.RepInfo {
			w.t.Fatalf("GO: %#x %q", uint32(h.Rep), data)
		}
	}
}

func goData(export string) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(export))), export...)
	return binary.BigEndian.AppendUint16(b, 0)
}

func metaData(export string, queries ...string) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(export))), export...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(q))), q...)
	}
	return b
}

// req encodes a request.
func req(cmd nbdproto.Cmd, flags nbdproto.CmdFlags, cookie, off uint64, n uint32, payload ...byte) []byte {
	b := nbdproto.AppendRequest(nil, nbdproto.Request{
		Magic: nbdproto.MagicRequest, Flags: flags, Cmd: cmd, Cookie: cookie, Offset: off, Len: n,
	})
	return append(b, payload...)
}

// simple reads a simple reply without data.
func (w *wire) simple() (nbdproto.Errno, uint64) {
	w.t.Helper()
	b := w.read(nbdproto.SimpleLen)
	if m := binary.BigEndian.Uint32(b); m != nbdproto.MagicSimpleReply {
		w.t.Fatalf("reply has magic %#x", m)
	}
	return nbdproto.Errno(binary.BigEndian.Uint32(b[4:])), binary.BigEndian.Uint64(b[8:])
}

// wantErrno fails the test unless the next reply is simple and has these.
func (w *wire) wantErrno(errno nbdproto.Errno, cookie uint64) {
	w.t.Helper()
	if e, c := w.simple(); e != errno || c != cookie {
		w.t.Fatalf("reply is %v for cookie %d, want %v for %d", e, c, errno, cookie)
	}
}

// inStep fails the test unless the connection still answers.
func (w *wire) inStep() {
	w.t.Helper()
	w.write(req(nbdproto.CmdFlush, 0, 0xfee1, 0, 0))
	w.wantErrno(nbdproto.OK, 0xfee1)
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return b
}

// eventually waits for a condition that the server reaches by itself.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(2 * time.Millisecond); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

func zeroes(b []byte) bool { return bytes.Equal(b, make([]byte, len(b))) }

func memExport() (*nbdtest.Mem, *nbdtest.Export) {
	dev := nbdtest.NewMem(testSize)
	return dev, nbdtest.SyncExport(dev, 4)
}

// exerciseClient tries every call of our client on a server whose export is all zeroes.
func exerciseClient(t *testing.T, uri string, size int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := nbdclient.Dial(ctx, uri)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Size() != size {
		t.Fatalf("size %d, want %d", c.Size(), size)
	}
	model := make([]byte, size)
	p := pattern(1<<20, 3)
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, err = c.WriteAt(p, 4096)
	check("write", err)
	copy(model[4096:], p)
	_, err = c.WriteFUA(p[:8192], 2<<20)
	check("write FUA", err)
	copy(model[2<<20:], p[:8192])
	check("flush", c.Flush())
	check("trim", c.Trim(blockdev.Range{Off: 64 << 10, Len: 128 << 10}, nbdproto.CmdFUA))
	clear(model[64<<10:][:128<<10])
	check("zero", c.Zero(blockdev.Range{Off: 512 << 10, Len: 4096}, false))
	clear(model[512<<10:][:4096])
	got := make([]byte, size)
	_, err = c.ReadAt(got, 0)
	check("read", err)
	if !bytes.Equal(got, model) {
		t.Fatal("read back differs")
	}
	es, err := c.BlockStatus(blockdev.Range{Len: size})
	check("block status", err)
	if last := es[len(es)-1].Range; es[0].Range.Off != 0 || last.End() != size {
		t.Fatalf("extents do not cover the export: %v", es)
	}
}

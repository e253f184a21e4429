package replication

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
)

// errCut: the connection was closed without an answer.
var errCut = errors.New("connection closed without an answer")

// clientConn is one connection to an export: it asks the gate as the NBD server does.
type clientConn struct {
	t testing.TB
	e *Export
}

func (t *Tenure) client(tb testing.TB) *clientConn { return &clientConn{tb, t.Export()} }

// begin admits an operation. The answer comes when the gate lets it.
func (c *clientConn) begin(req *blockdev.Request) <-chan error {
	answer := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	if err := c.gate(ctx); err != nil {
		cancel()
		answer <- err
		return answer
	}
	done := make(chan struct{})
	var calls atomic.Int32
	req.Done = func(r *blockdev.Request) {
		if r != req || calls.Add(1) != 1 {
			c.t.Errorf("Done called %d times, or for another request", calls.Load())
			return
		}
		close(done)
	}
	c.e.Submit(req)
	go func() {
		defer cancel()
		select {
		case <-done:
		case <-c.e.Gone():
			answer <- errCut
			return
		}
		if err := c.gate(ctx); err != nil {
			answer <- err
			return
		}
		if req.Buf != nil && req.Op == blockdev.OpWrite {
			req.Buf.Free()
		}
		answer <- req.Err
	}()
	return answer
}

func (c *clientConn) gate(ctx context.Context) error {
	err := c.e.Gate(ctx)
	if errors.Is(err, blockdev.ErrNotPrimary) {
		return errCut
	}
	return err
}

func (c *clientConn) do(req *blockdev.Request) error { return <-c.begin(req) }

func writeReq(off int64, p []byte) *blockdev.Request {
	b := blockdev.NewBuf(len(p))
	copy(b.Bytes(), p)
	return &blockdev.Request{Op: blockdev.OpWrite, Range: blockdev.Range{Off: off, Len: int64(len(p))}, Buf: b, Sum: crc32.Checksum(p, castagnoli)}
}

func (c *clientConn) write(off int64, p []byte) error { return c.do(writeReq(off, p)) }

func (c *clientConn) flush() error { return c.do(&blockdev.Request{Op: blockdev.OpFlush}) }

func (c *clientConn) read(off, n int64) ([]byte, error) {
	b := blockdev.NewBuf(int(n))
	err := c.do(&blockdev.Request{Op: blockdev.OpRead, Range: blockdev.Range{Off: off, Len: n}, Buf: b})
	return bytes.Clone(b.Bytes()), err
}

func pattern(n int, seed byte) []byte { return bytes.Repeat([]byte{seed}, n) }

// marked is a payload that a cable may change.
func marked(n int, seed byte) []byte {
	p := pattern(n, seed)
	copy(p, rotten)
	return p
}

// load has several clients write, zero, trim, read and flush at random, overlapping, until stopped or cut.
type load struct {
	goes sync.WaitGroup
	stop chan struct{}
	ops  atomic.Int64
	cut  atomic.Int64
}

const loadArea = 256 << 10 // small, so that operations overlap

func startLoad(tb testing.TB, t *Tenure, clients int) *load {
	l := &load{stop: make(chan struct{})}
	for i := range clients {
		l.goes.Go(func() { l.run(tb, t.client(tb), rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	return l
}

func (l *load) run(tb testing.TB, c *clientConn, rnd *rand.Rand) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		var wait []<-chan error
		for range 1 + rnd.IntN(8) {
			wait = append(wait, c.begin(randomOp(rnd)))
		}
		for _, w := range wait {
			switch err := <-w; {
			case errors.Is(err, errCut):
				l.cut.Add(1)
				return
			case err != nil:
				tb.Errorf("operation failed: %v", err)
				return
			}
			l.ops.Add(1)
		}
	}
}

func randomOp(rnd *rand.Rand) *blockdev.Request {
	n := int64(1+rnd.IntN(16)) * 512
	if rnd.IntN(20) == 0 {
		n = 64 << 10
	}
	off := rnd.Int64N((loadArea-n)/512) * 512
	r := blockdev.Range{Off: off, Len: n}
	switch k := rnd.IntN(20); {
	case k < 2:
		return &blockdev.Request{Op: blockdev.OpZero, Range: r, Unmap: k == 0, FUA: rnd.IntN(4) == 0}
	case k < 4:
		return &blockdev.Request{Op: blockdev.OpFlush}
	case k < 7:
		return &blockdev.Request{Op: blockdev.OpRead, Range: r, Buf: blockdev.NewBuf(int(n))}
	}
	req := writeReq(off, pattern(int(n), byte(rnd.Uint32())))
	req.FUA = rnd.IntN(8) == 0
	return req
}

// more waits until n further operations were answered.
func (l *load) more(lab *lab, n int64) {
	lab.t.Helper()
	from := l.ops.Load()
	lab.await("operations to be answered", func() bool { return l.ops.Load() >= from+n })
}

func (l *load) end() { close(l.stop); l.goes.Wait() }

// content is all that a node's device holds.
func (n *labNode) content() []byte {
	n.l.t.Helper()
	p := make([]byte, n.mem.Size())
	if _, err := n.mem.ReadAt(p, 0); err != nil {
		n.l.t.Fatal(err)
	}
	return p
}

// durable demands that a power loss at this moment takes nothing from the nodes.
func (l *lab) durable(names ...string) {
	l.t.Helper()
	for _, name := range names {
		n := l.nodes[name]
		if d := memdev.Differing(n.mem, n.mem.Clone(memdev.CrashOptions{})); len(d) > 0 {
			l.t.Errorf("%s holds what is not durable in %d blocks, the first at %v", name, len(d), d[0])
		}
	}
}

// same demands that the nodes hold the same bytes.
func (l *lab) same(names ...string) {
	l.t.Helper()
	for _, n := range names[1:] {
		if d := memdev.Differing(l.nodes[names[0]].mem, l.nodes[n].mem); len(d) > 0 {
			l.t.Fatalf("%s and %s differ in %d blocks, the first at %v", names[0], n, len(d), d[0])
		}
	}
}

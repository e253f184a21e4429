package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen soon; no test passes by its running out.
const patience = 30 * time.Second

type handlerFunc func(ctx context.Context, s *Session) error

func (f handlerFunc) Replicate(ctx context.Context, s *Session) error { return f(ctx, s) }

// serve runs a server on a loopback port and returns its address.
func serve(t testing.TB, h handlerFunc) string {
	return serveWith(t, &Service{handler: h, helloTime: helloTime})
}

func serveWith(t testing.TB, s *Service) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(ServerOptions()...)
	s.register(srv)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Stop()
		wg.Wait()
		s.Wait()
	})
	return l.Addr().String()
}

func tcpDial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func connect(t testing.TB, addr string, dial func(context.Context, string) (net.Conn, error)) *grpc.ClientConn {
	t.Helper()
	conn, err := ClientConn(addr, dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func hello() wire.Hello {
	return wire.Hello{
		Cluster: wire.ID{1}, Volume: wire.ID{2}, VolumeName: "pgdata", Size: 1 << 30, BlockSize: blockdev.BlockSize,
		Epoch: 7, Primary: "alpha", Process: 1, Stream: 3, Target: "beta",
	}
}

func dial(t testing.TB, addr string) *Sender {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, _, err := Dial(ctx, connect(t, addr, tcpDial), hello())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func accept(s *Session) error { return s.Reply(wire.HelloReply{Node: "beta"}) }

func fill(n int, seed byte) *blockdev.Buf {
	b := blockdev.NewBuf(n)
	for i := range b.Bytes() {
		b.Bytes()[i] = seed + byte(i) + byte(i>>8)
	}
	return b
}

func writeFrame(seq uint64, b *blockdev.Buf) wire.Frame {
	n := len(b.Bytes())
	return wire.Frame{
		Kind: wire.Write, Seq: seq, Range: blockdev.Range{Off: 4096 * int64(seq), Len: int64(n)},
		Sum: crc32.Checksum(b.Bytes(), crc32.MakeTable(crc32.Castagnoli)), Buf: b,
	}
}

func refs(b *blockdev.Buf) int64 {
	return reflect.ValueOf(b).Elem().FieldByName("refs").FieldByName("v").Int()
}

// mustReturn waits until the test's own reference to each Buf is the last one.
func mustReturn(t *testing.T, bufs ...*blockdev.Buf) {
	t.Helper()
	eventually(t, "all references to come back", func() bool {
		for _, b := range bufs {
			if refs(b) != 1 {
				return false
			}
		}
		return true
	})
}

// eventually waits for what happens inside of gRPC, which tells nobody.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v in vain for %s", patience, what)
		panic("unreachable")
	}
}

// apply is a standby that checks and acknowledges everything, and hands each frame to fn.
func apply(fn func(*wire.Frame)) handlerFunc {
	return func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for {
			b, err := s.Recv()
			if err != nil {
				return err
			}
			var last uint64
			for i := range b.Frames {
				f := &b.Frames[i]
				if err := f.Verify(); err != nil {
					nack := wire.Reply{Kind: wire.Nack, Seq: f.Seq, Code: wire.BadChecksum, Text: err.Error()}
					b.Free()
					return errors.Join(err, s.Send(nack))
				}
				if fn != nil {
					fn(f)
				}
				last = max(last, f.Seq)
			}
			b.Free()
			if err := s.Send(wire.Reply{Kind: wire.Ack, Seq: last}); err != nil {
				return err
			}
		}
	}
}

// awaitAck reads replies until seq is acknowledged.
func awaitAck(t testing.TB, s *Sender, seq uint64) {
	t.Helper()
	for {
		replies, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range replies {
			if r.Kind != wire.Ack {
				t.Fatalf("%v %d: %v %s", r.Kind, r.Seq, r.Code, r.Text)
			}
			if r.Seq == seq {
				return
			}
		}
	}
}

func TestWritesArriveInOrderAndTheirBuffersComeBack(t *testing.T) {
	const frames = 500
	var got []uint64
	var data [][]byte
	s := dial(t, serve(t, apply(func(f *wire.Frame) {
		got = append(got, f.Seq)
		data = append(data, bytes.Join(f.Payload, nil))
	})))
	box := NewOutbox(OutboxLimits{})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := box.Run(ctx, s.Send); err != nil {
			t.Errorf("outbox: %v", err)
		}
	})
	var bufs []*blockdev.Buf
	for seq := uint64(1); seq <= frames; seq++ {
		bufs = append(bufs, fill(1<<(9+seq%8), byte(seq)))
		if err := box.Put(writeFrame(seq, bufs[seq-1])); err != nil {
			t.Fatal(err)
		}
	}
	awaitAck(t, s, frames)
	cancel()
	wg.Wait()
	for i := range got {
		if got[i] != uint64(i+1) || !bytes.Equal(data[i], bufs[i].Bytes()) {
			t.Fatalf("frame %d came as number %d with %d bytes, want %d", got[i], i+1, len(data[i]), len(bufs[i].Bytes()))
		}
	}
	mustReturn(t, bufs...)
}

func TestLargestWriteArrivesWhole(t *testing.T) {
	b := fill(wire.MaxWrite, 3)
	segments := make(chan int, 1)
	s := dial(t, serve(t, apply(func(f *wire.Frame) { segments <- len(f.Payload) })))
	if err := s.Send([]wire.Frame{writeFrame(1, b)}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 1)
	if n := <-segments; n < 2 {
		t.Errorf("32 MiB came in %d segment: something flattened them", n)
	}
	mustReturn(t, b)
}

// faults.md G39, G42-G44, G48: what the standby refuses reaches the primary as the code it decides on.
func TestRefusalReachesThePrimary(t *testing.T) {
	for code := wire.RefusedVersion; code <= wire.RefusedBusy; code++ {
		want := wire.HelloReply{
			VersionMin: wire.VersionMin, VersionMax: wire.Version, Code: code, Text: "because", Node: "beta",
			Boot: wire.ID{5}, Attachment: "8:16", Process: 2, Epoch: 9, Stream: 12, LastSeq: 4, Flags: wire.ReplicaFailed,
		}
		addr := serve(t, func(_ context.Context, s *Session) error { return s.Reply(want) })
		_, got, err := Dial(t.Context(), connect(t, addr, tcpDial), hello())
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reply != want || got != want {
			t.Errorf("%v: %v, reply %+v", code, err, got)
		}
	}
}

func TestStandbySeesTheGreeting(t *testing.T) {
	seen := make(chan wire.Hello, 1)
	addr := serve(t, func(_ context.Context, s *Session) error {
		seen <- s.Hello()
		return accept(s)
	})
	dial(t, addr)
	want := hello()
	want.VersionMin, want.VersionMax = wire.VersionMin, wire.Version
	if got := <-seen; got != want {
		t.Errorf("greeting %+v, want %+v", got, want)
	}
}

// faults.md G51: a peer that accepts and never answers costs the greeting's deadline, no more.
func TestG51PeerThatNeverAnswersIsBoundedByTheDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	greeted := make(chan struct{}, 1)
	silent := serve(t, func(ctx context.Context, s *Session) error {
		greeted <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	for name, c := range map[string]struct {
		addr  string
		ready func()
	}{
		"TCP without HTTP/2":     {l.Addr().String(), func() { acceptSilently(t, l) }},
		"standby without answer": {silent, func() { <-greeted }},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		conn := connect(t, c.addr, tcpDial)
		done := make(chan error, 1)
		go func() {
			_, _, err := Dial(ctx, conn, hello())
			done <- err
		}()
		c.ready()
		cancel()
		if err := receive(t, name, done); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// acceptSilently takes a connection, waits until its client has said something, and keeps it until the test ends.
func acceptSilently(t *testing.T, l net.Listener) {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestDialSaysThatNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, _, err = Dial(t.Context(), connect(t, l.Addr().String(), tcpDial), hello())
	if !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

func TestDialsDeadlineDoesNotEndTheStream(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, _, err := Dial(ctx, connect(t, serve(t, apply(nil)), tcpDial), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	b := fill(4096, 1)
	if err := s.Send([]wire.Frame{writeFrame(1, b)}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 1)
}

// A standby that does not read stops the sender by flow control; Close frees the sender, the standby and all memory.
func TestCloseEndsBlockedSendAndReturnsEveryBuffer(t *testing.T) {
	ended := make(chan error, 1)
	s := dial(t, serve(t, func(ctx context.Context, s *Session) error {
		err := accept(s)
		<-ctx.Done()
		ended <- err
		return ctx.Err()
	}))
	var bufs []*blockdev.Buf
	done := make(chan error, 2)
	go func() {
		for seq := uint64(1); ; seq++ {
			b := fill(1<<20, byte(seq))
			bufs = append(bufs, b)
			if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
				done <- err
				return
			}
		}
	}()
	go func() {
		_, err := s.Recv()
		done <- err
	}()
	// The window is 4 MiB: long before 64 are on their way, Send waits.
	eventually(t, "the window to fill", func() bool { return s.sent.Load() > streamWindow>>20 })
	s.Close()
	for range 2 {
		if err := receive(t, "Send and Recv", done); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v, want %v", err, ErrClosed)
		}
	}
	if err := receive(t, "the standby", ended); err != nil {
		t.Errorf("standby: %v", err)
	}
	if len(bufs) > 64 {
		t.Errorf("%d MiB were taken from the sender and not read by anybody", len(bufs))
	}
	mustReturn(t, bufs...)
}

func TestSessionCloseEndsBothSides(t *testing.T) {
	ended := make(chan error, 1)
	s := dial(t, serve(t, func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		go s.Close()
		_, err := s.Recv()
		<-ctx.Done()
		ended <- err
		return err
	}))
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Errorf("primary: %v, want %v", err, ErrEnded)
	}
	if err := receive(t, "the standby", ended); !errors.Is(err, ErrClosed) {
		t.Errorf("standby: %v, want %v", err, ErrClosed)
	}
}

func TestPrimaryLearnsWhyTheStandbyEnded(t *testing.T) {
	s := dial(t, serve(t, func(_ context.Context, s *Session) error {
		return errors.Join(accept(s), errors.New("the disk is on fire"))
	}))
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("%v", err)
	}
}

// faults.md G50: a connection cut in mid-batch ends both sides, and nothing of the torn message is handed on.
func TestG50CutInMidBatchHandsNothingOn(t *testing.T) {
	var cut net.Conn
	ended := make(chan error, 1)
	addr := serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for {
			b, err := s.Recv()
			if err != nil {
				ended <- err
				return err
			}
			for i := range b.Frames {
				if err := b.Frames[i].Verify(); err != nil {
					t.Error(err)
				}
			}
			b.Free()
		}
	})
	s, _, err := Dial(t.Context(), connect(t, addr, func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := tcpDial(ctx, addr)
		if cut == nil {
			cut = &tearing{Conn: c, left: 3 << 20}
		}
		return cut, err
	}), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for seq := uint64(1); err == nil; seq++ {
		err = s.Send([]wire.Frame{writeFrame(seq, fill(2<<20, byte(seq)))})
	}
	if !errors.Is(err, ErrEnded) {
		t.Errorf("sender: %v, want %v", err, ErrEnded)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Errorf("sender's receiver: %v, want %v", err, ErrEnded)
	}
	if err := receive(t, "the standby", ended); !errors.Is(err, ErrEnded) {
		t.Errorf("standby: %v, want %v", err, ErrEnded)
	}
}

// tearing closes itself after so many bytes were written, in the middle of whatever that is.
type tearing struct {
	net.Conn
	left int
}

func (c *tearing) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		c.Conn.Close()
	}
	return c.Conn.Write(p)
}

// answer is a standby that accepts, waits for one message, and then says what it is told to say.
func answer(replies ...[]wire.Reply) handlerFunc {
	return func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		b, err := s.Recv()
		if err != nil {
			return err
		}
		b.Free()
		for _, r := range replies {
			if err := s.Send(r...); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}
}

// faults.md G52: what was not sent cannot be acknowledged, nor anything twice.
func TestG52AckOutOfPlaceIsAProtocolError(t *testing.T) {
	ack := func(seqs ...uint64) (rs []wire.Reply) {
		for _, s := range seqs {
			rs = append(rs, wire.Reply{Kind: wire.Ack, Seq: s})
		}
		return rs
	}
	for name, replies := range map[string][][]wire.Reply{
		"not sent":            {ack(11)},
		"twice":               {ack(9), ack(9)},
		"twice in a message":  {ack(9, 9)},
		"older after newer":   {ack(10), ack(9)},
		"not sent, after one": {ack(10), ack(11)},
	} {
		s := dial(t, serve(t, answer(replies...)))
		if err := s.Send([]wire.Frame{{Kind: wire.Flush, Seq: 9}, {Kind: wire.Flush, Seq: 10}}); err != nil {
			t.Fatal(err)
		}
		var err error
		for n := 0; err == nil; n++ {
			if n > len(replies) {
				t.Fatalf("%s: accepted", name)
			}
			_, err = s.Recv()
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, want %v", name, err, ErrProtocol)
		}
	}
}

// The standby may hold more of the epoch, from an earlier stream, than this stream has sent so far.
func TestAckOfAnEarlierStreamsFramesIsAccepted(t *testing.T) {
	s, _, err := Dial(t.Context(), connect(t, serve(t, func(_ context.Context, s *Session) error {
		if err := s.Reply(wire.HelloReply{Node: "beta", LastSeq: 20}); err != nil {
			return err
		}
		b, err := s.Recv()
		if err != nil {
			return err
		}
		b.Free()
		return s.Send(wire.Reply{Kind: wire.Ack, Seq: 20})
	}), tcpDial), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send([]wire.Frame{{Kind: wire.Flush, Seq: 19}}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 20)
}

// R2: what a standby says on this stream about another one is not believed.
func TestRepliesOfAnotherStreamAreAProtocolError(t *testing.T) {
	for name, change := range map[string]func(*wire.Hello){
		"another epoch":  func(h *wire.Hello) { h.Epoch-- },
		"another stream": func(h *wire.Hello) { h.Stream-- },
	} {
		s := dial(t, serve(t, func(ctx context.Context, s *Session) error {
			if err := accept(s); err != nil {
				return err
			}
			change(&s.hello)
			err := s.Send(wire.Reply{Kind: wire.Pong})
			<-ctx.Done()
			return err
		}))
		if _, err := s.Recv(); !errors.Is(err, ErrProtocol) {
			t.Errorf("reply of %s: %v, want %v", name, err, ErrProtocol)
		}
		addr := serve(t, func(_ context.Context, s *Session) error {
			change(&s.hello)
			return accept(s)
		})
		if _, _, err := Dial(t.Context(), connect(t, addr, tcpDial), hello()); !errors.Is(err, ErrProtocol) {
			t.Errorf("acceptance of %s: %v, want %v", name, err, ErrProtocol)
		}
	}
}

// countingPool knows how much of what it handed out has not come back.
type countingPool struct {
	mem.BufferPool
	out atomic.Int64
}

func (p *countingPool) Get(n int) *[]byte {
	p.out.Add(1)
	return p.BufferPool.Get(n)
}

func (p *countingPool) Put(b *[]byte) {
	p.out.Add(-1)
	p.BufferPool.Put(b)
}

func TestReceivedMemoryComesBack(t *testing.T) {
	pool := &countingPool{BufferPool: segments}
	segments = pool
	defer func() { segments = pool.BufferPool }()
	s := dial(t, serve(t, apply(nil)))
	b := fill(300_000, 1)
	for seq := uint64(1); seq <= 20; seq++ {
		if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, s, seq)
	}
	// 19 pieces for each message: what is left is what transports keep for themselves.
	eventually(t, "received segments to come back", func() bool { return pool.out.Load() < 10 })
}

// sendRaw sends bytes that Sender would refuse to send.
func sendRaw(t *testing.T, s *Sender, msg []byte) {
	t.Helper()
	if err := s.stream.SendMsg(&outgoing{bufs: mem.BufferSlice{mem.SliceBuffer(msg)}}); err != nil {
		t.Fatal(err)
	}
}

func batchBytes(t *testing.T, epoch, stream uint64, frames ...wire.Frame) []byte {
	t.Helper()
	msg, err := wire.AppendBatch(nil, wire.Batch{Epoch: epoch, Stream: stream, Frames: frames}, wire.NoSize)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// What a primary must not say is an error at the standby, with which the stream ends; nothing of it is handed on.
func TestStandbyRefusesBrokenMessages(t *testing.T) {
	flush := func(seq uint64) wire.Frame { return wire.Frame{Kind: wire.Flush, Seq: seq} }
	beyond := wire.Frame{Kind: wire.Zero, Seq: 2, Range: blockdev.Range{Off: hello().Size, Len: 4096}}
	torn := batchBytes(t, 7, 3, flush(2))
	for name, c := range map[string]struct {
		msg  []byte
		want error
	}{
		"G46 gap between messages":   {batchBytes(t, 7, 3, flush(3)), wire.ErrOrder},
		"G45 message again":          {batchBytes(t, 7, 3, flush(1)), wire.ErrOrder},
		"G42 older epoch":            {batchBytes(t, 6, 3, flush(2)), ErrProtocol},
		"another stream's message":   {batchBytes(t, 7, 2, flush(2)), ErrProtocol},
		"N18 range past the volume":  {batchBytes(t, 7, 3, beyond), wire.ErrLimit},
		"message cut short":          {torn[:len(torn)-1], wire.ErrMalformed},
		"garbage":                    {[]byte("GET / HTTP/1.1\r\n\r\n"), wire.ErrMalformed},
		"empty message":              {nil, wire.ErrMalformed},
		"N22 payload is not there":   {batchWithoutPayload(t), wire.ErrMalformed},
		"greeting in mid-stream":     {helloBytes(t, hello()), wire.ErrMalformed},
		"G47 over the largest write": {make([]byte, wire.MaxMessage+1), ErrEnded},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 1)
			s := dial(t, serve(t, func(_ context.Context, s *Session) error {
				if err := accept(s); err != nil {
					return err
				}
				b, err := s.Recv()
				if err == nil {
					b.Free()
					if b, err = s.Recv(); err == nil {
						b.Free()
					}
				}
				got <- err
				return err
			}))
			if err := s.Send([]wire.Frame{flush(1)}); err != nil {
				t.Fatal(err)
			}
			sendRaw(t, s, c.msg)
			if err := receive(t, "the standby", got); !errors.Is(err, c.want) {
				t.Errorf("standby: %v, want %v", err, c.want)
			}
			if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
				t.Errorf("primary: %v, want %v", err, ErrEnded)
			}
		})
	}
}

func batchWithoutPayload(t *testing.T) []byte {
	b := fill(4096, 1)
	defer b.Free()
	return batchBytes(t, 7, 3, writeFrame(2, b))
}

func helloBytes(t *testing.T, h wire.Hello) []byte {
	t.Helper()
	h.VersionMin, h.VersionMax = wire.VersionMin, wire.Version
	msg, err := wire.AppendHello(nil, h)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// faults.md G49: the payload that does not match is refused by a nack that names it.
func TestG49WrongChecksumIsRefused(t *testing.T) {
	applied := 0
	s := dial(t, serve(t, apply(func(*wire.Frame) { applied++ })))
	b := fill(4096, 1)
	f := writeFrame(1, b)
	f.Sum++
	if err := s.Send([]wire.Frame{f}); err != nil {
		t.Fatal(err)
	}
	replies, err := s.Recv()
	if err != nil || len(replies) != 1 || replies[0].Kind != wire.Nack || replies[0].Seq != 1 || replies[0].Code != wire.BadChecksum {
		t.Fatalf("%v %+v", err, replies)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) || applied != 0 {
		t.Errorf("after the nack: %v, %d applied", err, applied)
	}
	mustReturn(t, b)
}

// greetRaw opens a stream whose first message is msg and returns what ends it.
func greetRaw(t *testing.T, addr string, msg []byte) (wire.HelloReply, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := connect(t, addr, tcpDial).NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		"/"+serviceName+"/"+streamName, grpc.CallContentSubtype(codecName))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&outgoing{bufs: mem.BufferSlice{mem.SliceBuffer(msg)}}); err != nil {
		t.Fatal(err)
	}
	var in incoming
	if err := stream.RecvMsg(&in); err != nil {
		return wire.HelloReply{}, err
	}
	defer in.free()
	return wire.DecodeHelloReply(in.view())
}

// faults.md G54: a primary of a version that is not spoken here is told which are.
func TestG54UnknownVersionIsRefusedByNumber(t *testing.T) {
	addr := serve(t, func(context.Context, *Session) error {
		t.Error("the handler was called")
		return nil
	})
	h := hello()
	h.VersionMin, h.VersionMax = wire.Version+1, wire.Version+2
	msg, err := wire.AppendHello(nil, h)
	if err != nil {
		t.Fatal(err)
	}
	r, err := greetRaw(t, addr, msg)
	if err != nil || r.Code != wire.RefusedVersion || r.VersionMin != wire.VersionMin || r.VersionMax != wire.Version {
		t.Errorf("%v %+v", err, r)
	}
	_, _, err = Dial(t.Context(), connect(t, addr, tcpDial), h)
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reply.Code != wire.RefusedVersion {
		t.Errorf("Dial: %v", err)
	}
}

func TestGarbageInsteadOfAGreetingNeverReachesTheHandler(t *testing.T) {
	addr := serve(t, func(context.Context, *Session) error {
		t.Error("the handler was called")
		return nil
	})
	for name, msg := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "a batch": batchBytes(t, 7, 3, wire.Frame{Kind: wire.Ping}),
		"half a greeting": helloBytes(t, hello())[:100],
	} {
		if _, err := greetRaw(t, addr, msg); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want %v", name, err, codes.InvalidArgument)
		}
	}
}

func TestStreamWithoutGreetingIsClosed(t *testing.T) {
	addr := serveWith(t, &Service{helloTime: 20 * time.Millisecond, handler: handlerFunc(func(context.Context, *Session) error {
		t.Error("the handler was called")
		return nil
	})})
	stream, err := connect(t, addr, tcpDial).NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		"/"+serviceName+"/"+streamName, grpc.CallContentSubtype(codecName))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(incoming)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v, want %v", err, codes.DeadlineExceeded)
	}
}

// A caller with another codec, or of another method with this one, gets an error; the server stays.
func TestForeignCodecsAreRefused(t *testing.T) {
	addr := serve(t, apply(nil))
	conn := connect(t, addr, tcpDial)
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+serviceName+"/"+streamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(incoming)); err == nil {
		t.Error("a stream with the codec of protobuf is served")
	}
	if _, err := (codec{}).Marshal("text"); err == nil {
		t.Error("text is encoded")
	}
	if err := (codec{}).Unmarshal(nil, new(string)); err == nil {
		t.Error("text is decoded")
	}
	dial(t, addr)
}

func TestSendRefusesWhatTheProtocolDoesNotAllow(t *testing.T) {
	s := dial(t, serve(t, apply(nil)))
	b := fill(4096, 1)
	if err := s.Send([]wire.Frame{writeFrame(1, b)}); err != nil {
		t.Fatal(err)
	}
	for name, frames := range map[string][]wire.Frame{
		"nothing":           {},
		"gap":               {writeFrame(3, b)},
		"repetition":        {writeFrame(1, b)},
		"outside":           {{Kind: wire.Zero, Seq: 2, Range: blockdev.Range{Len: hello().Size + 1}}},
		"write without Buf": {{Kind: wire.Write, Seq: 2, Range: blockdev.Range{Len: 4096}}},
		"Buf of other size": {{Kind: wire.Write, Seq: 2, Range: blockdev.Range{Len: 512}, Buf: b}},
	} {
		if err := s.Send(frames); err == nil {
			t.Errorf("%s: sent", name)
		}
	}
	// None of it has reached the peer or moved the count.
	if err := s.Send([]wire.Frame{writeFrame(2, b)}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 2)
	mustReturn(t, b)
}

func TestDigestsAndPongsComeBack(t *testing.T) {
	digests := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	want := []wire.Reply{
		{Kind: wire.DigestReply, ID: 1, Range: blockdev.Range{Len: wire.MaxDigestRange}, Digests: digests},
		{Kind: wire.DigestReply, ID: 2, Range: blockdev.Range{Len: 4096}, Code: wire.ReadFailed, Text: "no"},
		{Kind: wire.Pong, ID: 3},
	}
	s := dial(t, serve(t, answer(want)))
	if err := s.Send([]wire.Frame{{Kind: wire.Ping, ID: 3}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Recv()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: got %v, want %v", err, brief(got), brief(want))
	}
}

func brief(rs []wire.Reply) (s []string) {
	for _, r := range rs {
		s = append(s, fmt.Sprintf("%v %d %v %d bytes %v %q", r.Kind, r.ID, r.Range, len(r.Digests), r.Code, r.Text))
	}
	return s
}

func TestBatchOutlivesTheNextOnesWhileReferenced(t *testing.T) {
	var kept []*Batch
	s := dial(t, serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for len(kept) < 8 {
			b, err := s.Recv()
			if err != nil {
				return err
			}
			b.Ref()
			b.Free()
			kept = append(kept, b)
		}
		for i, b := range kept {
			if err := b.Frames[0].Verify(); err != nil || b.Frames[0].Seq != uint64(i+1) {
				t.Errorf("kept batch %d: frame %d, %v", i, b.Frames[0].Seq, err)
			}
			b.Free()
		}
		return s.Send(wire.Reply{Kind: wire.Ack, Seq: 8})
	}))
	for seq := uint64(1); seq <= 8; seq++ {
		b := fill(70000, byte(seq))
		if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
			t.Fatal(err)
		}
		b.Free()
	}
	awaitAck(t, s, 8)
}

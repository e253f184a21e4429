package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"hacluster/blockdev/hot"
	"hacluster/replication/wire"
)

// Session is the standby's end of a stream. Recv and Send, or a ReplyBox, may be used at the same time, each by one
// goroutine; Close may be called from any, and ends both.
type Session struct {
	hello   wire.Hello
	version uint16 // that both sides speak
	conn    net.Conn
	under   net.Conn        // as it was accepted
	ctx     context.Context // ends with the stream
	cancel  context.CancelFunc
	closed  atomic.Bool

	// Recv's own:
	in    *input
	order wire.Order

	// Of whoever sends:
	to     output
	head   []byte
	roomy  bool // it sends content: what a message of that needs is kept
	pieces [1][]byte
}

func newSession(conn net.Conn) *Session {
	under := conn
	conn = hot.Take(conn)
	s := &Session{under: under, conn: conn, in: newInput(conn), to: newOutput(conn)}
	s.in.eager()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Hello is the greeting with which the stream began.
func (s *Session) Hello() wire.Hello { return s.hello }

// Reply answers the greeting; it is called once, before Recv and Send. Versions that are left zero are this package's
// own, and an acceptance is of the greeting's epoch and stream. After a refusal the handler returns.
func (s *Session) Reply(r wire.HelloReply) error {
	if r.VersionMin == 0 && r.VersionMax == 0 {
		r.VersionMin, r.VersionMax = wire.VersionMin, wire.Version
	}
	if r.Code == wire.Accepted {
		r.Epoch, r.Stream = s.hello.Epoch, s.hello.Stream
		s.version = min(s.hello.VersionMax, r.VersionMax)
	}
	msg, err := wire.AppendHelloReply(s.headRoom(), r)
	return s.send(msg, err)
}

// Recv waits for the next message of the primary. All of it was checked but the payloads (wire.Frame.Verify): its
// ranges are within the volume, its sequence numbers follow those before. After a gap or a repetition, a
// *wire.OrderError, or another error of package wire nothing of the message may be applied and the stream is over,
// though a Nack can still be sent. The caller frees the batch.
func (s *Session) Recv() (*Batch, error) {
	b := newBatch()
	if err := s.recv(b); err != nil {
		b.Free()
		return nil, err
	}
	return b, nil
}

func (s *Session) recv(b *Batch) error {
	head, payload, err := s.in.message(framesLimits)
	if err != nil {
		return s.outcome(err)
	}
	if err := s.check(b, head, payload); err != nil {
		return s.fromPrimary(err)
	}
	if err := b.readPayload(s.in, payload); errors.Is(err, ErrProtocol) {
		return s.fromPrimary(err)
	} else if err != nil {
		return s.outcome(err)
	}
	if s.closed.Load() {
		return ErrClosed
	}
	s.in.alone(len(b.Frames) == 1)
	return nil
}

// check decodes a message's head and judges it, before memory is taken for the payload.
func (s *Session) check(b *Batch, head []byte, payload int) error {
	if err := b.DecodeHead(head, payload, s.hello.Size); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if b.Epoch != s.hello.Epoch || b.Stream != s.hello.Stream {
		return protocolError("frames of epoch %d stream %d on the stream %d of epoch %d",
			b.Epoch, b.Stream, s.hello.Stream, s.hello.Epoch)
	}
	if b.Version != s.version {
		return protocolError("frames of version %d on a stream of version %d", b.Version, s.version)
	}
	if err := s.order.Check(b.Frames); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// Buffered reports whether something of the next message is here already, so that the next Recv will not wait long.
func (s *Session) Buffered() bool { return s.in.buffered() > 0 }

func (s *Session) output() output { return s.to }

// begin makes replies the next message: at most wire.MaxFrames with wire.MaxBlobs bytes of digests and texts.
func (s *Session) begin(replies []wire.Reply) error {
	room, data := s.headRoom(), 0
	for i := range replies {
		data += len(replies[i].Data)
	}
	if data > 0 {
		s.roomy = true
		room = slices.Grow(room, wire.HeaderSize+len(replies)*wire.ReplySize+data)
	}
	msg, err := wire.AppendReplies(room, wire.Replies{Epoch: s.hello.Epoch, Stream: s.hello.Stream, Version: s.version, Items: replies})
	return s.load(msg, err)
}

// headRoom is memory for a message, with room for its prefix.
func (s *Session) headRoom() []byte { return append(s.head[:0], make([]byte, prefixSize)...) }

// keepHead: what a message of many digests needed is not kept. A stream that answers reads keeps what it needs for those, 1 MiB at most.
const keepHead = 64 << 10

func (s *Session) load(msg []byte, err error) error {
	if s.head = msg; cap(msg) > keepHead && !s.roomy {
		s.head = nil
	}
	if err != nil {
		return fmt.Errorf("answer node %q: %w", s.hello.Primary, err)
	}
	putPrefix(msg, len(msg)-prefixSize, 0)
	s.pieces[0] = msg
	s.to.begin(s.pieces[:])
	return nil
}

// Send hands replies over as one message, and waits while the primary does not read.
func (s *Session) Send(replies ...wire.Reply) error {
	if err := s.begin(replies); err != nil {
		return err
	}
	return s.outcome(s.to.finish())
}

func (s *Session) send(msg []byte, err error) error {
	if err := s.load(msg, err); err != nil {
		return err
	}
	return s.outcome(s.to.finish())
}

// Close ends the stream at once. Calls that wait return ErrClosed, and the context that Replicate was given ends. What
// was sent before still reaches the primary.
func (s *Session) Close() {
	s.closed.Store(true)
	s.cancel()
	_ = s.conn.SetDeadline(time.Unix(1, 0)) // for calls that wait; what comes after sees closed
	hangUp(s.conn)
}

func (s *Session) outcome(err error) error {
	if err == nil {
		return nil
	}
	if s.closed.Load() {
		return ErrClosed
	}
	return s.fromPrimary(ended(err))
}

func (s *Session) fromPrimary(err error) error {
	return fmt.Errorf("stream of node %q for volume %q: %w", s.hello.Primary, s.hello.VolumeName, err)
}

// readHello receives the greeting. A primary that speaks no version of ours is told so.
func (s *Session) readHello() error {
	head, _, err := s.in.message(greetingLimits)
	if err != nil {
		return ended(err)
	}
	hello, err := wire.DecodeHello([][]byte{head})
	var version *wire.VersionError
	if errors.As(err, &version) {
		return errors.Join(err, s.Reply(wire.HelloReply{Code: wire.RefusedVersion, Text: err.Error()}))
	}
	if err != nil {
		return err
	}
	s.hello = hello
	return nil
}

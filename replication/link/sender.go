package link

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev/hot"
	"hacluster/replication/wire"
)

// Sender is the primary's end of a stream. Send, or an Outbox, and Recv may be used at the same time, each by one
// goroutine; Close may be called from any, and ends both.
type Sender struct {
	hello   wire.Hello
	version uint16 // that both sides speak
	conn    net.Conn
	closed  atomic.Bool
	over    sync.Once
	gone    chan struct{} // closed when the stream is over: who waits for its turn on the line need not any more
	line    *Line         // nil: none
	beyond  *Line         // on which another node carries the stream on; nil: none does
	lending *lending      // to that node; nil: it is sent everything
	paced   *pacedOutput  // to, where there is a line
	packer  *packer       // nil: the peer knows no compression, or there is no line
	sent    atomic.Uint64 // last sequence number begun to be sent, or known to the standby from an earlier stream

	// Of whoever sends:
	to     output
	order  wire.Order
	head   []byte
	pieces [][]byte

	// Recv's own:
	in       *input
	acked    uint64
	received uint64
	replies  wire.Replies
}

// Dial greets the standby at the other end of conn, and owns conn from then on. ctx bounds the greeting only: a peer
// that accepts and never answers costs that long. Afterwards the stream lives until Close or until it breaks. The reply
// is what the standby said, if it said anything; its refusal is a *RefusedError. hello's versions may be left zero.
func Dial(ctx context.Context, conn net.Conn, hello wire.Hello) (*Sender, wire.HelloReply, error) {
	if hello.VersionMin == 0 && hello.VersionMax == 0 {
		hello.VersionMin, hello.VersionMax = wire.VersionMin, wire.Version
	}
	conn = hot.Take(conn)
	s := &Sender{hello: hello, conn: conn, gone: make(chan struct{}), to: newOutput(conn), in: newInput(conn)}
	stop := context.AfterFunc(ctx, s.Close)
	reply, err := s.greet()
	if !stop() && err == nil {
		err = ErrClosed // too late: the stream is closed already
	}
	if err != nil {
		s.Close()
		s.in.close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		return nil, reply, fmt.Errorf("greet node %q for volume %q: %w", hello.Target, hello.VolumeName, err)
	}
	return s, reply, nil
}

func (s *Sender) greet() (wire.HelloReply, error) {
	msg, err := wire.AppendHello(make([]byte, prefixSize), s.hello)
	if err != nil {
		return wire.HelloReply{}, err
	}
	putPrefix(msg, len(msg)-prefixSize, 0)
	_, sendErr := s.conn.Write(msg)
	// When sending failed because the stream is over, receiving tells why.
	head, _, err := s.in.message(greetingLimits)
	if err != nil {
		return wire.HelloReply{}, ended(err)
	}
	reply, err := wire.DecodeHelloReply([][]byte{head})
	switch {
	case err != nil:
		return reply, err
	case reply.Code != wire.Accepted:
		return reply, &RefusedError{Reply: reply}
	case sendErr != nil:
		return reply, ended(sendErr)
	case reply.Epoch != s.hello.Epoch || reply.Stream != s.hello.Stream:
		return reply, protocolError("accepted epoch %d stream %d, asked for epoch %d stream %d",
			reply.Epoch, reply.Stream, s.hello.Epoch, s.hello.Stream)
	}
	s.version = min(s.hello.VersionMax, reply.VersionMax)
	s.sent.Store(reply.LastSeq)
	return reply, nil
}

// Version is what the stream speaks.
func (s *Sender) Version() uint16 { return s.version }

func (s *Sender) output() output { return s.to }

// begin makes frames the next message: at most wire.MaxFrames with wire.MaxBatchPayload bytes, or one alone. They and
// their Bufs stay as they are until it is through. After an error nothing of them was sent and the stream can go on.
func (s *Sender) begin(frames []wire.Frame) error {
	head, err := wire.AppendBatch(append(s.head[:0], make([]byte, prefixSize)...),
		wire.Batch{Epoch: s.hello.Epoch, Stream: s.hello.Stream, Version: s.version, Frames: frames}, s.hello.Size)
	s.head = head
	if err != nil {
		return fmt.Errorf("send to node %q: %w", s.hello.Target, err)
	}
	if err := s.order.Check(frames); err != nil {
		return fmt.Errorf("send to node %q: %w", s.hello.Target, err)
	}
	// Before the message can arrive, so that no acknowledgement overtakes it.
	s.sent.Store(max(s.sent.Load(), s.order.Last()))
	s.pieces = append(s.pieces[:0], head)
	payload := 0
	for i := range frames {
		if b := frames[i].Buf; b != nil {
			s.pieces = append(s.pieces, b.Bytes())
			payload += len(b.Bytes())
		}
	}
	if s.paced != nil {
		s.paced.plain = len(head) + payload
	}
	if s.lending != nil && s.lending.begin(frames, payload, lastOf(frames)) {
		wire.Lend(head[prefixSize:])
		s.pieces, payload = s.pieces[:1], 0
	}
	if s.packer != nil && payload > 0 {
		if packed := s.packer.take(s.pieces[1:], payload); packed != nil {
			wire.Pack(head[prefixSize:])
			s.pieces, payload = append(s.pieces[:1], packed), len(packed)
		}
	}
	putPrefix(head, len(head)-prefixSize, payload)
	s.to.begin(s.pieces)
	return nil
}

// lastOf is the last sequence number of the frames; 0: they have none.
func lastOf(frames []wire.Frame) uint64 {
	for i := len(frames) - 1; i >= 0; i-- {
		if frames[i].Seq != 0 {
			return frames[i].Seq
		}
	}
	return 0
}

// Send hands frames over as one message. It returns when the message is on its way, and waits while the peer reads too
// slowly. After an error of the connection the stream is over; Recv tells why.
func (s *Sender) Send(frames []wire.Frame) error {
	if err := s.begin(frames); err != nil {
		return err
	}
	return s.outcome(s.to.finish())
}

// Recv waits for the next message from the standby. The replies and their Data are valid until the next Recv; their
// Digests and Text for good. An acknowledgement is greater than all before it and covers only what was sent.
func (s *Sender) Recv() ([]wire.Reply, error) {
	head, _, err := s.in.message(repliesLimits)
	if err != nil {
		return nil, s.outcome(err)
	}
	segments := [1][]byte{head}
	if err := s.replies.Decode(segments[:]); err != nil {
		return nil, s.broken(fmt.Errorf("%w: %w", ErrProtocol, err))
	}
	acked := s.acked
	if err := s.checkReplies(); err != nil {
		return nil, s.broken(err)
	}
	s.in.alone(s.acked == acked+1 && s.acked == s.sent.Load())
	return s.replies.Items, nil
}

func (s *Sender) checkReplies() error {
	r := &s.replies
	if r.Epoch != s.hello.Epoch || r.Stream != s.hello.Stream {
		return protocolError("replies of epoch %d stream %d on the stream %d of epoch %d",
			r.Epoch, r.Stream, s.hello.Stream, s.hello.Epoch)
	}
	if r.Version != s.version {
		return protocolError("replies of version %d on a stream of version %d", r.Version, s.version)
	}
	sent := s.sent.Load()
	for i := range r.Items {
		item := &r.Items[i]
		prefix := &s.acked
		switch item.Kind {
		case wire.Ack:
		case wire.Received:
			prefix = &s.received
		default:
			continue
		}
		if item.Seq > sent {
			return protocolError("frame %d is acknowledged (%v), the last one sent is %d", item.Seq, item.Kind, sent)
		}
		if item.Seq <= *prefix {
			return protocolError("frame %d is acknowledged after frame %d (%v)", item.Seq, *prefix, item.Kind)
		}
		*prefix = item.Seq
	}
	if s.lending != nil {
		s.lending.acked(s.acked)
	}
	return nil
}

// broken ends the stream for what the peer did.
func (s *Sender) broken(err error) error {
	s.hangUp()
	return fmt.Errorf("receive from node %q: %w", s.hello.Target, err)
}

func (s *Sender) outcome(err error) error {
	if err == nil {
		return nil
	}
	if s.closed.Load() {
		return ErrClosed
	}
	s.hangUp() // whichever side found it out, the other one must not wait for it
	return fmt.Errorf("node %q: %w", s.hello.Target, ended(err))
}

// Close ends the stream at once: what is still on its way may or may not arrive. Calls that wait return ErrClosed.
func (s *Sender) Close() {
	s.closed.Store(true)
	s.hangUp()
}

// hangUp closes the connection. A deadline in the past comes first: closing TLS waits for a Write that waits.
func (s *Sender) hangUp() {
	s.over.Do(func() { close(s.gone) })
	_ = s.conn.SetDeadline(time.Unix(1, 0))
	_ = s.conn.Close()
}

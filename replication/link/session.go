package link

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"hacluster/replication/wire"
)

// Session is the standby's end of a stream. Recv and Send may run at the same time, each in one goroutine; Close may
// be called from any, and ends both.
type Session struct {
	hello  wire.Hello
	stream grpc.ServerStream
	close  sync.Once
	closed chan struct{} // closed by Close

	in    incoming   // the greeting's; batches have their own
	order wire.Order // Recv's own
	out   outgoing   // Send's own
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
	}
	msg, err := wire.AppendHelloReply(nil, r)
	if err != nil {
		return fmt.Errorf("answer node %q: %w", s.hello.Primary, err)
	}
	return s.send(msg)
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
	if err := s.stream.RecvMsg(&b.in); err != nil {
		return s.outcome(err)
	}
	if err := b.Decode(b.in.view(), s.hello.Size); err != nil {
		return s.fromPrimary(fmt.Errorf("%w: %w", ErrProtocol, err))
	}
	if b.Epoch != s.hello.Epoch || b.Stream != s.hello.Stream {
		return s.fromPrimary(protocolError("frames of epoch %d stream %d on the stream %d of epoch %d",
			b.Epoch, b.Stream, s.hello.Stream, s.hello.Epoch))
	}
	if err := s.order.Check(b.Frames); err != nil {
		return s.fromPrimary(fmt.Errorf("%w: %w", ErrProtocol, err))
	}
	return nil
}

// Send hands replies over as one message: at most wire.MaxFrames with wire.MaxBlobs bytes of digests and texts.
func (s *Session) Send(replies ...wire.Reply) error {
	msg, err := wire.AppendReplies(make([]byte, 0, wire.HeaderSize+len(replies)*wire.ReplySize),
		wire.Replies{Epoch: s.hello.Epoch, Stream: s.hello.Stream, Items: replies})
	if err != nil {
		return fmt.Errorf("answer node %q: %w", s.hello.Primary, err)
	}
	return s.send(msg)
}

func (s *Session) send(msg []byte) error {
	s.out.bufs = bufsOf(msg, nil)
	err := s.stream.SendMsg(&s.out)
	s.out.free()
	return s.outcome(err)
}

// Close ends the stream at once. Calls that wait return ErrClosed, and the context that Replicate was given ends.
func (s *Session) Close() { s.close.Do(func() { close(s.closed) }) }

func (s *Session) outcome(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.closed:
		return ErrClosed
	default:
		return s.fromPrimary(ended(err))
	}
}

func (s *Session) fromPrimary(err error) error {
	return fmt.Errorf("stream of node %q for volume %q: %w", s.hello.Primary, s.hello.VolumeName, err)
}

// readHello receives the greeting. A primary that speaks no version of ours is told so.
func (s *Session) readHello() error {
	if err := s.stream.RecvMsg(&s.in); err != nil {
		return ended(err)
	}
	defer s.in.free()
	hello, err := wire.DecodeHello(s.in.view())
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

// context ends with the stream.
func (s *Session) context() context.Context { return s.stream.Context() }

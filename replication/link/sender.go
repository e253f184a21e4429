package link

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"

	"hacluster/replication/wire"
)

const (
	serviceName = "hacluster.replication.v1.Replication"
	streamName  = "Replicate"
)

// Sender is the primary's end of a stream. Send and Recv may run at the same time, each in one goroutine; Close may
// be called from any, and ends both.
//
// References to Bufs come back when their bytes are written or the stream is closed. When the connection itself breaks,
// gRPC forgets what it was writing, at most a message for each stream: those Bufs are left to the garbage collector and
// never see their last Free. So a Buf's end must not be what a budget waits for.
type Sender struct {
	hello  wire.Hello
	stream grpc.ClientStream
	cancel context.CancelFunc
	closed atomic.Bool
	sent   atomic.Uint64 // last sequence number handed to Send, or known to the standby from an earlier stream

	// Send's own.
	order wire.Order
	out   outgoing

	// Recv's own.
	acked   uint64
	in      incoming
	replies wire.Replies
}

// Dial greets the standby behind conn. ctx bounds the greeting only: a peer that accepts and never answers costs that
// long. Afterwards the stream lives until Close or until it breaks. The reply is what the standby said, if it said
// anything; its refusal is a *RefusedError. hello's versions may be left zero.
func Dial(ctx context.Context, conn grpc.ClientConnInterface, hello wire.Hello) (*Sender, wire.HelloReply, error) {
	if hello.VersionMin == 0 && hello.VersionMax == 0 {
		hello.VersionMin, hello.VersionMax = wire.VersionMin, wire.Version
	}
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Sender{hello: hello, cancel: cancel}
	stop := context.AfterFunc(ctx, cancel)
	reply, err := s.greet(streamCtx, conn)
	if !stop() && err == nil {
		err = ctx.Err() // too late: the stream is cancelled already
	}
	if err != nil {
		s.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		return nil, reply, fmt.Errorf("greet node %q for volume %q: %w", hello.Target, hello.VolumeName, err)
	}
	return s, reply, nil
}

func (s *Sender) greet(ctx context.Context, conn grpc.ClientConnInterface) (wire.HelloReply, error) {
	msg, err := wire.AppendHello(nil, s.hello)
	if err != nil {
		return wire.HelloReply{}, err
	}
	desc := &grpc.StreamDesc{StreamName: streamName, ClientStreams: true, ServerStreams: true}
	s.stream, err = conn.NewStream(ctx, desc, "/"+serviceName+"/"+streamName,
		grpc.CallContentSubtype(codecName), grpc.MaxCallRecvMsgSize(wire.MaxReplies))
	if err != nil {
		return wire.HelloReply{}, ended(err)
	}
	s.out.bufs = bufsOf(msg, nil)
	sendErr := s.stream.SendMsg(&s.out)
	s.out.free()
	// When sending failed because the stream is over, receiving tells why.
	if err := s.stream.RecvMsg(&s.in); err != nil {
		return wire.HelloReply{}, ended(err)
	}
	defer s.in.free()
	reply, err := wire.DecodeHelloReply(s.in.view())
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
	s.sent.Store(reply.LastSeq)
	return reply, nil
}

// Send hands frames over as one message: at most wire.MaxFrames with wire.MaxBatchPayload bytes, or one alone. It
// takes its own references to their Bufs and keeps none of the frames. It returns when the message is on its way, and
// waits while the peer reads too slowly. After an error the stream is over; Recv tells why.
func (s *Sender) Send(frames []wire.Frame) error {
	head, err := wire.AppendBatch(make([]byte, 0, wire.HeaderSize+len(frames)*wire.FrameSize),
		wire.Batch{Epoch: s.hello.Epoch, Stream: s.hello.Stream, Frames: frames}, s.hello.Size)
	if err != nil {
		return fmt.Errorf("send to node %q: %w", s.hello.Target, err)
	}
	if err := s.order.Check(frames); err != nil {
		return fmt.Errorf("send to node %q: %w", s.hello.Target, err)
	}
	// Before the message can arrive, so that no acknowledgement overtakes it.
	s.sent.Store(max(s.sent.Load(), s.order.Last()))
	s.out.bufs = bufsOf(head, frames)
	err = s.stream.SendMsg(&s.out)
	s.out.free()
	return s.outcome(err)
}

// Recv waits for the next message from the standby. The replies are valid until the next Recv; their Digests and
// Text for good. An acknowledgement is greater than all before it and covers only what was sent.
func (s *Sender) Recv() ([]wire.Reply, error) {
	if err := s.stream.RecvMsg(&s.in); err != nil {
		return nil, s.outcome(err)
	}
	defer s.in.free()
	if err := s.replies.Decode(s.in.view()); err != nil {
		return nil, s.broken(fmt.Errorf("%w: %w", ErrProtocol, err))
	}
	if err := s.checkReplies(); err != nil {
		return nil, s.broken(err)
	}
	return s.replies.Items, nil
}

func (s *Sender) checkReplies() error {
	r := &s.replies
	if r.Epoch != s.hello.Epoch || r.Stream != s.hello.Stream {
		return protocolError("replies of epoch %d stream %d on the stream %d of epoch %d",
			r.Epoch, r.Stream, s.hello.Stream, s.hello.Epoch)
	}
	sent := s.sent.Load()
	for i := range r.Items {
		item := &r.Items[i]
		if item.Kind != wire.Ack {
			continue
		}
		if item.Seq > sent {
			return protocolError("frame %d is acknowledged, the last one sent is %d", item.Seq, sent)
		}
		if item.Seq <= s.acked {
			return protocolError("frame %d is acknowledged after frame %d", item.Seq, s.acked)
		}
		s.acked = item.Seq
	}
	return nil
}

// broken ends the stream for what the peer did.
func (s *Sender) broken(err error) error {
	s.cancel()
	return fmt.Errorf("receive from node %q: %w", s.hello.Target, err)
}

func (s *Sender) outcome(err error) error {
	if err == nil {
		return nil
	}
	if s.closed.Load() {
		return ErrClosed
	}
	return fmt.Errorf("node %q: %w", s.hello.Target, ended(err))
}

// Close ends the stream at once: what is still on its way may or may not arrive. Calls that wait return ErrClosed.
func (s *Sender) Close() {
	s.closed.Store(true)
	s.cancel()
}

// Package link carries the messages of package wire between a primary and a standby: one stream for each volume and
// peer, over gRPC. It moves block data without copying it: a write's buffer goes out by reference, and what came in is
// handed on as the segments in which it was received.
//
//	primary                                         standby
//	Dial -> Sender                                  Register -> Handler.Replicate(ctx, Session)
//	  Outbox --Run--> Sender.Send    ----------->     Session.Recv -> Batch
//	                  Sender.Recv    <-----------     Session.Send <--Run-- ReplyBox
//
// What it checks, so that no caller has to: versions; that each message belongs to the stream's epoch and number (R2);
// that sequence numbers follow each other without a gap; that what is acknowledged was sent and not acknowledged
// before. What it does not do: decide who is primary, write to a device, retry, or reconnect. A stream that broke is
// over; the caller dials another.
//
// Nothing but Dial, Register, ClientConn and ServerOptions knows that there is gRPC, so that a connection of another
// kind can take its place.
package link

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/status"

	"hacluster/replication/wire"
)

// What callers decide on, besides the errors of package wire.
var (
	// ErrClosed: this side closed the stream.
	ErrClosed = errors.New("replication stream is closed")
	// ErrEnded: the peer or the network ended the stream.
	ErrEnded = errors.New("replication stream ended")
	// ErrProtocol: the peer broke a rule of the protocol; the stream must not go on.
	ErrProtocol = errors.New("replication protocol broken by the peer")
	// ErrFull: a queue is at its limit.
	ErrFull = errors.New("replication queue is full")
)

// RefusedError is the answer of a standby that does not take part.
type RefusedError struct {
	Reply wire.HelloReply
}

func (e *RefusedError) Error() string {
	s := fmt.Sprintf("node %q refuses the stream: %v", e.Reply.Node, e.Reply.Code)
	if e.Reply.Text != "" {
		s += ": " + e.Reply.Text
	}
	return s
}

// ended says why a stream is over, in this package's words.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w by the peer", ErrEnded)
	}
	if s, ok := status.FromError(err); ok {
		return fmt.Errorf("%w: %s: %s", ErrEnded, s.Code(), s.Message())
	}
	return fmt.Errorf("%w: %w", ErrEnded, err)
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

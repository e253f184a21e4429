// Package link carries the messages of package wire between a primary and a standby: one TCP connection, plain or TLS,
// for each volume and peer. Connections are brought by the caller; what is spoken on them is decided here.
//
//	primary                                         standby
//	Dial -> Sender                                  Server.Serve -> Handler.Replicate(ctx, Session)
//	  Outbox.Put, Flush -> Sender    ----------->     Session.Recv -> Batch
//	              Sender.Recv        <-----------     Session <- ReplyBox.Ack, Put, Flush
//
// In the order in which a write passes them: outbox.go collects frames, pump.go decides which goroutine sends them,
// sender.go makes a message, output.go hands it to the socket; input.go takes messages off the socket, session.go checks
// them, batch.go holds their memory, replybox.go collects what is answered. server.go keeps the standby's connections.
//
// What it checks, so that no caller has to: versions; lengths before memory is taken (R28); that each message belongs to
// the stream's epoch and number (R2); that sequence numbers follow each other without a gap; that what is acknowledged
// was sent and not acknowledged before. What it does not do: decide who is primary, write to a device, retry, connect
// or reconnect. A stream that broke is over; the caller dials another.
package link

import (
	"errors"
	"fmt"
	"io"

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

// goodbyeError is the last word of a standby that ends a stream.
type goodbyeError struct{ text string }

func (e *goodbyeError) Error() string { return fmt.Sprintf("the peer says %q", e.text) }

// ended says why a stream is over, in this package's words.
func ended(err error) error {
	switch {
	case errors.Is(err, ErrProtocol), errors.Is(err, ErrClosed):
		return err
	case err == io.EOF:
		return fmt.Errorf("%w by the peer", ErrEnded)
	}
	return fmt.Errorf("%w: %w", ErrEnded, err)
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

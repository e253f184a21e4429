package api

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Kind is what an operator's script decides on; its number is the exit code.
type Kind int

// The kinds.
const (
	KindFailed      Kind = 1 // it was tried and failed
	KindUsage       Kind = 2 // the request makes no sense as it stands
	KindRefused     Kind = 3 // it would lose data or break a rule
	KindUnavailable Kind = 4 // nobody answers, or the change lacks quorum
)

// Error is an error whose kind survives the wire. Text says in one line what, why, and what to do.
type Error struct {
	Kind Kind
	Text string
}

func (e *Error) Error() string { return e.Text }

// Failed: it was tried and did not work.
func Failed(format string, args ...any) error {
	return &Error{KindFailed, fmt.Sprintf(format, args...)}
}

// BadRequest: the request makes no sense, whatever the state of the cluster.
func BadRequest(format string, args ...any) error {
	return &Error{KindUsage, fmt.Sprintf(format, args...)}
}

// Refused: it would lose data or break a rule. The text says which, and which flag consents, if one does.
func Refused(format string, args ...any) error {
	return &Error{KindRefused, fmt.Sprintf(format, args...)}
}

// Unavailable: nobody can do it now (no quorum, no leader); nothing was done.
func Unavailable(format string, args ...any) error {
	return &Error{KindUnavailable, fmt.Sprintf(format, args...)}
}

// NotSupported: a command of the contract that this version does not know yet.
func NotSupported(what string) error { return &Error{KindFailed, what + ": not supported yet"} }

// KindOf tells the kind of any error.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return KindUnavailable
	}
	return KindFailed
}

// answeredKey marks, in the trailer, an error that a node gave; an error without it was found by gRPC itself.
const answeredKey = "hacluster-answered"

// refuse answers an RPC with an error.
func refuse(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	// Without the mark the client only says less precisely what happened.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(answeredKey, "1"))
	return toStatus(err)
}

func answered(trailer metadata.MD) bool { return len(trailer.Get(answeredKey)) > 0 }

// keepKind is the client's interceptor: errors get their kind back.
func keepKind(server string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		var trailer metadata.MD
		err := invoke(ctx, method, req, reply, conn, append(opts, grpc.Trailer(&trailer))...)
		return fromStatus(server, answered(trailer), err)
	}
}

// maxErrorText bounds an error text on the wire, where it travels in a header.
const maxErrorText = 2048

// toStatus gives an error the code that the protocol promises.
func toStatus(err error) error {
	code := codes.Unknown
	switch {
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	default:
		switch KindOf(err) {
		case KindUsage:
			code = codes.InvalidArgument
		case KindRefused:
			code = codes.FailedPrecondition
		case KindUnavailable:
			code = codes.Unavailable
		}
	}
	text := err.Error()
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + " ..."
	}
	return status.Error(code, text)
}

// fromStatus is toStatus backwards. server names who was asked; answered: the error is its own.
func fromStatus(server string, answered bool, err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := st.Message()
	switch st.Code() {
	case codes.Canceled:
		return fmt.Errorf("ask %s: %w", server, context.Canceled)
	case codes.InvalidArgument:
		return &Error{KindUsage, text}
	case codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated:
		return &Error{KindRefused, text}
	case codes.Unavailable:
		if !answered {
			return &Error{KindUnavailable, fmt.Sprintf(
				"the connection to %s was lost (%s): whether it was done is unknown: see ha-admin status", server, text)}
		}
		return &Error{KindUnavailable, text}
	case codes.DeadlineExceeded:
		return &Error{KindUnavailable, fmt.Sprintf(
			"no answer from %s in time: whether it was done is unknown: see ha-admin status, or wait longer with --timeout", server)}
	case codes.Unimplemented:
		return &Error{KindFailed, fmt.Sprintf("%s does not know this command: not supported yet by its version (%s)", server, text)}
	}
	return &Error{KindFailed, text}
}

package link

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/replication/wire"
)

// helloTime is what a new stream may take until its greeting is there.
const helloTime = 5 * time.Second

// Handler is what a standby does with a stream. Replicate answers the greeting, receives and acknowledges until the
// stream ends, and returns when all that it took in has ended; ctx ends with the stream. It is called for each stream
// in a goroutine of its own.
type Handler interface {
	Replicate(ctx context.Context, s *Session) error
}

// Service is a Handler that was registered.
type Service struct {
	handler   Handler
	helloTime time.Duration
	running   sync.WaitGroup
}

// Register adds the data path to a server made with ServerOptions.
func Register(r grpc.ServiceRegistrar, h Handler) *Service {
	s := &Service{handler: h, helloTime: helloTime}
	s.register(r)
	return s
}

func (s *Service) register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*streamServer)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName:    streamName,
			Handler:       func(srv any, stream grpc.ServerStream) error { return srv.(streamServer).serve(stream) },
			ClientStreams: true,
			ServerStreams: true,
		}},
		Metadata: "hacluster/replication/link",
	}, s)
}

type streamServer interface{ serve(grpc.ServerStream) error }

// Wait returns when no Replicate runs any more. It is called after the server has stopped.
func (s *Service) Wait() { s.running.Wait() }

// serve runs one stream. A stream ends for its user only when this returns: so it waits beside the handler, and
// returns early when the session is closed or no greeting comes. The handler's calls then fail, and it returns.
func (s *Service) serve(stream grpc.ServerStream) error {
	sess := &Session{stream: stream, closed: make(chan struct{})}
	greeted := make(chan struct{}) // closed by the goroutine when the greeting is there
	done := make(chan error, 1)    // one result, from the goroutine
	s.running.Go(func() { done <- s.run(sess, greeted) })

	timer := time.NewTimer(s.helloTime)
	defer timer.Stop()
	for {
		select {
		case <-greeted:
			timer.Stop()
			greeted = nil
		case <-timer.C:
			if greeted != nil {
				return status.Errorf(codes.DeadlineExceeded, "no greeting within %v", s.helloTime)
			}
		case <-sess.closed:
			return status.Error(codes.Aborted, "the standby closed the stream")
		case err := <-done:
			return toStatus(err)
		}
	}
}

func (s *Service) run(sess *Session, greeted chan<- struct{}) error {
	if err := sess.readHello(); err != nil {
		return err
	}
	close(greeted)
	return s.handler.Replicate(sess.context(), sess)
}

// toStatus tells the primary why its stream ended.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrVersion):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrLimit), errors.Is(err, wire.ErrOrder), errors.Is(err, ErrProtocol):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, wire.ErrChecksum):
		return status.Error(codes.DataLoss, err.Error())
	default:
		return status.Error(codes.Aborted, err.Error())
	}
}

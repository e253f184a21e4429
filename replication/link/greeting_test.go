package link

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"hacluster/replication/wire"
)

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

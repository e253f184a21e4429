package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

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
		_, got, err := Dial(t.Context(), connect(t, addr), hello())
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
		"TCP and nothing else":   {l.Addr().String(), func() { acceptSilently(t, l) }},
		"standby without answer": {silent, func() { <-greeted }},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		conn := connect(t, c.addr)
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

func TestDialsDeadlineDoesNotEndTheStream(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, _, err := Dial(ctx, connect(t, serve(t, apply(nil))), hello())
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

// greetRaw opens a stream whose first message is msg, with a prefix of its own, and returns what answers it.
func greetRaw(t *testing.T, addr string, msg []byte) (wire.HelloReply, error) {
	t.Helper()
	return answerTo(t, addr, prefixed(msg))
}

// prefixed is a message without payload as it stands on the wire.
func prefixed(msg []byte) []byte {
	b := append(make([]byte, prefixSize), msg...)
	putPrefix(b, len(msg), 0)
	return b
}

// answerTo sends bytes as they are.
func answerTo(t *testing.T, addr string, b []byte) (wire.HelloReply, error) {
	t.Helper()
	conn := connect(t, addr)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	in := newInput(conn)
	defer in.close()
	head, _, err := in.message(greetingLimits)
	if err != nil {
		return wire.HelloReply{}, err
	}
	return wire.DecodeHelloReply([][]byte{head})
}

// faults.md G54: a primary of a version that is not spoken here, older or newer, is told which are, and so is one whose standby
// is of such a version.
func TestG54UnknownVersionIsRefusedByNumber(t *testing.T) {
	addr := serve(t, func(context.Context, *Session) error {
		t.Error("the handler was called")
		return nil
	})
	for _, v := range [][2]uint16{{wire.VersionMin - 1, wire.VersionMin - 1}, {wire.Version + 1, wire.Version + 2}} {
		h := hello()
		h.VersionMin, h.VersionMax = v[0], v[1]
		msg, err := wire.AppendHello(nil, h)
		if err != nil {
			t.Fatal(err)
		}
		both := fmt.Sprintf("the peer speaks %d to %d, this node %d to %d; upgrade the older", v[0], v[1], wire.VersionMin, wire.Version)
		r, err := greetRaw(t, addr, msg)
		if err != nil || r.Code != wire.RefusedVersion || r.VersionMin != wire.VersionMin || r.VersionMax != wire.Version || !strings.Contains(r.Text, both) {
			t.Errorf("%v: %v %+v", v, err, r)
		}
		_, _, err = Dial(t.Context(), connect(t, addr), h)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reply.Code != wire.RefusedVersion {
			t.Errorf("Dial of %v: %v", v, err)
		}
		other := serve(t, func(_ context.Context, s *Session) error {
			return s.Reply(wire.HelloReply{VersionMin: v[0], VersionMax: v[1], Code: wire.RefusedVersion, Node: "beta"})
		})
		if _, _, err = Dial(t.Context(), connect(t, other), hello()); !errors.Is(err, wire.ErrVersion) || !strings.Contains(err.Error(), both) {
			t.Errorf("Dial of a standby of %v: %v", v, err)
		}
	}
}

func TestGarbageInsteadOfAGreetingNeverReachesTheHandler(t *testing.T) {
	addr := serve(t, func(context.Context, *Session) error {
		t.Error("the handler was called")
		return nil
	})
	for name, msg := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "a batch": batchBytes(t, 7, 3, wire.Frame{Kind: wire.Ping}),
		"half a greeting": helloBytes(t, hello())[:100], "zeroes": make([]byte, 400),
	} {
		var bye *goodbyeError
		if _, err := greetRaw(t, addr, msg); !errors.As(err, &bye) || !strings.Contains(bye.text, wire.ErrMalformed.Error()) {
			t.Errorf("%s: %v, want to be told that it is malformed", name, err)
		}
	}
	// What is no message at all, and lengths that no memory is taken for (R28).
	payload, head := make([]byte, prefixSize), make([]byte, prefixSize)
	putPrefix(payload, 200, 1<<31)
	putPrefix(head, 1<<31, 0)
	for name, b := range map[string][]byte{"HTTP": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "G47 head": head, "G47 payload": payload} {
		if _, err := answerTo(t, addr, b); err == nil {
			t.Errorf("%s: answered like a greeting", name)
		}
	}
}

func TestStreamWithoutGreetingIsClosed(t *testing.T) {
	s := NewServer(handlerFunc(func(context.Context, *Session) error {
		t.Error("the handler was called")
		return nil
	}), slog.New(slog.DiscardHandler))
	s.helloTime = 20 * time.Millisecond
	addr := serveWith(t, s)
	for name, b := range map[string][]byte{"silent": {}, "half a prefix": {1, 2, 3}, "half a greeting": helloBytes(t, hello())[:100]} {
		if _, err := answerTo(t, addr, b); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v, want the end of the connection", name, err)
		}
	}
}

// R28: the greeting's deadline is not that of the stream.
func TestIdleStreamSurvivesTheGreetingsDeadline(t *testing.T) {
	for limit := 50 * time.Millisecond; ; limit *= 2 {
		s := NewServer(apply(nil), slog.New(slog.DiscardHandler))
		s.helloTime = limit
		addr := serveWith(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		st, _, err := Dial(ctx, connect(t, addr), hello())
		cancel()
		if err != nil && limit < patience { // on a busy machine the greeting may be late
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		<-time.After(2 * limit)
		if err := st.Send([]wire.Frame{{Kind: wire.Flush, Seq: 1}}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, st, 1)
		return
	}
}

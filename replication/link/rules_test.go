package link

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// answer is a standby that accepts, waits for one message, and then says what it is told to say.
func answer(replies ...[]wire.Reply) handlerFunc {
	return func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		b, err := s.Recv()
		if err != nil {
			return err
		}
		b.Free()
		for _, r := range replies {
			if err := s.Send(r...); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}
}

// faults.md G52: what was not sent cannot be acknowledged, nor anything twice.
func TestG52AckOutOfPlaceIsAProtocolError(t *testing.T) {
	ack := func(seqs ...uint64) (rs []wire.Reply) {
		for _, s := range seqs {
			rs = append(rs, wire.Reply{Kind: wire.Ack, Seq: s})
		}
		return rs
	}
	received := func(seq uint64) []wire.Reply { return []wire.Reply{{Kind: wire.Received, Seq: seq}} }
	for name, replies := range map[string][][]wire.Reply{
		"received, not sent":  {received(11)},
		"received twice":      {received(9), received(9)},
		"not sent":            {ack(11)},
		"twice":               {ack(9), ack(9)},
		"twice in a message":  {ack(9, 9)},
		"older after newer":   {ack(10), ack(9)},
		"not sent, after one": {ack(10), ack(11)},
	} {
		s := dial(t, serve(t, answer(replies...)))
		if err := s.Send([]wire.Frame{{Kind: wire.Flush, Seq: 9}, {Kind: wire.Flush, Seq: 10}}); err != nil {
			t.Fatal(err)
		}
		var err error
		for n := 0; err == nil; n++ {
			if n > len(replies) {
				t.Fatalf("%s: accepted", name)
			}
			_, err = s.Recv()
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, want %v", name, err, ErrProtocol)
		}
	}
}

// The standby may hold more of the epoch, from an earlier stream, than this stream has sent so far.
func TestAckOfAnEarlierStreamsFramesIsAccepted(t *testing.T) {
	s, _, err := Dial(t.Context(), connect(t, serve(t, func(_ context.Context, s *Session) error {
		if err := s.Reply(wire.HelloReply{Node: "beta", LastSeq: 20}); err != nil {
			return err
		}
		b, err := s.Recv()
		if err != nil {
			return err
		}
		b.Free()
		return s.Send(wire.Reply{Kind: wire.Ack, Seq: 20})
	})), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send([]wire.Frame{{Kind: wire.Flush, Seq: 19}}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 20)
}

// R2: what a standby says on this stream about another one is not believed.
func TestRepliesOfAnotherStreamAreAProtocolError(t *testing.T) {
	for name, change := range map[string]func(*wire.Hello){
		"another epoch":  func(h *wire.Hello) { h.Epoch-- },
		"another stream": func(h *wire.Hello) { h.Stream-- },
	} {
		s := dial(t, serve(t, func(ctx context.Context, s *Session) error {
			if err := accept(s); err != nil {
				return err
			}
			change(&s.hello)
			err := s.Send(wire.Reply{Kind: wire.Pong})
			<-ctx.Done()
			return err
		}))
		if _, err := s.Recv(); !errors.Is(err, ErrProtocol) {
			t.Errorf("reply of %s: %v, want %v", name, err, ErrProtocol)
		}
		addr := serve(t, func(_ context.Context, s *Session) error {
			change(&s.hello)
			return accept(s)
		})
		if _, _, err := Dial(t.Context(), connect(t, addr), hello()); !errors.Is(err, ErrProtocol) {
			t.Errorf("acceptance of %s: %v, want %v", name, err, ErrProtocol)
		}
	}
}

// sendRaw sends bytes that Sender would refuse to send.
func sendRaw(t *testing.T, s *Sender, msg []byte) {
	t.Helper()
	if _, err := s.conn.Write(prefixed(msg)); err != nil {
		t.Fatal(err)
	}
}

func batchBytes(t *testing.T, epoch, stream uint64, frames ...wire.Frame) []byte {
	t.Helper()
	msg, err := wire.AppendBatch(nil, wire.Batch{Epoch: epoch, Stream: stream, Frames: frames}, wire.NoSize)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// What a primary must not say is an error at the standby, with which the stream ends; nothing of it is handed on.
func TestStandbyRefusesBrokenMessages(t *testing.T) {
	flush := func(seq uint64) wire.Frame { return wire.Frame{Kind: wire.Flush, Seq: seq} }
	beyond := wire.Frame{Kind: wire.Zero, Seq: 2, Range: blockdev.Range{Off: hello().Size, Len: 4096}}
	torn := batchBytes(t, 7, 3, flush(2))
	for name, c := range map[string]struct {
		msg  []byte
		want error
	}{
		"G46 gap between messages":  {batchBytes(t, 7, 3, flush(3)), wire.ErrOrder},
		"G45 message again":         {batchBytes(t, 7, 3, flush(1)), wire.ErrOrder},
		"G42 older epoch":           {batchBytes(t, 6, 3, flush(2)), ErrProtocol},
		"another stream's message":  {batchBytes(t, 7, 2, flush(2)), ErrProtocol},
		"N18 range past the volume": {batchBytes(t, 7, 3, beyond), wire.ErrLimit},
		"message cut short":         {torn[:len(torn)-1], wire.ErrMalformed},
		"garbage":                   {[]byte("GET / HTTP/1.1\r\n\r\n"), wire.ErrMalformed},
		"empty message":             {nil, wire.ErrMalformed},
		"N22 payload is not there":  {batchWithoutPayload(t), wire.ErrMalformed},
		"greeting in mid-stream":    {helloBytes(t, hello()), wire.ErrMalformed},
		"G47 over the largest head": {make([]byte, maxFramesHead+1), wire.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 1)
			s := dial(t, serve(t, func(_ context.Context, s *Session) error {
				if err := accept(s); err != nil {
					return err
				}
				b, err := s.Recv()
				if err == nil {
					b.Free()
					if b, err = s.Recv(); err == nil {
						b.Free()
					}
				}
				got <- err
				return err
			}))
			if err := s.Send([]wire.Frame{flush(1)}); err != nil {
				t.Fatal(err)
			}
			sendRaw(t, s, c.msg)
			if err := receive(t, "the standby", got); !errors.Is(err, c.want) {
				t.Errorf("standby: %v, want %v", err, c.want)
			}
			if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
				t.Errorf("primary: %v, want %v", err, ErrEnded)
			}
		})
	}
}

func batchWithoutPayload(t *testing.T) []byte {
	b := fill(4096, 1)
	defer b.Free()
	return batchBytes(t, 7, 3, writeFrame(2, b))
}

func helloBytes(t *testing.T, h wire.Hello) []byte {
	t.Helper()
	h.VersionMin, h.VersionMax = wire.VersionMin, wire.Version
	msg, err := wire.AppendHello(nil, h)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// faults.md G49: the payload that does not match is refused by a nack that names it.
func TestG49WrongChecksumIsRefused(t *testing.T) {
	var applied atomic.Int32
	s := dial(t, serve(t, apply(func(*wire.Frame) { applied.Add(1) })))
	b := fill(4096, 1)
	f := writeFrame(1, b)
	f.Sum++
	if err := s.Send([]wire.Frame{f}); err != nil {
		t.Fatal(err)
	}
	replies, err := s.Recv()
	if err != nil || len(replies) != 1 || replies[0].Kind != wire.Nack || replies[0].Seq != 1 || replies[0].Code != wire.BadChecksum {
		t.Fatalf("%v %+v", err, replies)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) || applied.Load() != 0 {
		t.Errorf("after the nack: %v, %d applied", err, applied.Load())
	}
	mustReturn(t, b)
}

func TestSendRefusesWhatTheProtocolDoesNotAllow(t *testing.T) {
	s := dial(t, serve(t, apply(nil)))
	b := fill(4096, 1)
	if err := s.Send([]wire.Frame{writeFrame(1, b)}); err != nil {
		t.Fatal(err)
	}
	for name, frames := range map[string][]wire.Frame{
		"nothing":           {},
		"gap":               {writeFrame(3, b)},
		"repetition":        {writeFrame(1, b)},
		"outside":           {{Kind: wire.Zero, Seq: 2, Range: blockdev.Range{Len: hello().Size + 1}}},
		"write without Buf": {{Kind: wire.Write, Seq: 2, Range: blockdev.Range{Len: 4096}}},
		"Buf of other size": {{Kind: wire.Write, Seq: 2, Range: blockdev.Range{Len: 512}, Buf: b}},
	} {
		if err := s.Send(frames); err == nil {
			t.Errorf("%s: sent", name)
		}
	}
	// None of it has reached the peer or moved the count.
	if err := s.Send([]wire.Frame{writeFrame(2, b)}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 2)
	mustReturn(t, b)
}

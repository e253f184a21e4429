package link

import (
	"context"
	"errors"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// A stream speaks the newest version that both sides know; what that lacks cannot be said in it.
func TestStreamSpeaksWhatBothSidesKnow(t *testing.T) {
	for _, c := range []struct{ primary, standby, want uint16 }{
		{wire.Version, wire.Version, wire.Version},
		{3, wire.Version, 3},
		{4, wire.Version, 4},
		{wire.Version, 4, 4},
		{wire.Version, 3, 3},
	} {
		got := make(chan uint16, 1)
		addr := serve(t, func(_ context.Context, s *Session) error {
			if err := s.Reply(wire.HelloReply{Node: "beta", VersionMin: wire.VersionMin, VersionMax: c.standby}); err != nil {
				return err
			}
			b, err := s.Recv()
			if err != nil {
				return err
			}
			got <- b.Version
			b.Free()
			return s.Send(wire.Reply{Kind: wire.Pong, ID: 1})
		})
		h := hello()
		h.VersionMin, h.VersionMax = wire.VersionMin, c.primary
		s, _, err := Dial(t.Context(), connect(t, addr), h)
		if err != nil {
			t.Fatal(err)
		}
		if s.Version() != c.want {
			t.Errorf("%d and %d: the primary speaks %d, want %d", c.primary, c.standby, s.Version(), c.want)
		}
		sums := wire.Frame{Kind: wire.Digest, Flags: wire.Sums, ID: 1, Range: blockdev.Range{Len: 4096}}
		if c.want < wire.VersionSums {
			if err := s.Send([]wire.Frame{sums}); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%d and %d: a request for sums: %v", c.primary, c.standby, err)
			}
			sums = wire.Frame{Kind: wire.Ping, ID: 1}
		}
		if err := s.Send([]wire.Frame{sums}); err != nil {
			t.Error(err)
		}
		if v := receive(t, "the message", got); v != c.want {
			t.Errorf("%d and %d: a message of version %d, want %d", c.primary, c.standby, v, c.want)
		}
		if _, err := s.Recv(); err != nil {
			t.Errorf("%d and %d: the answer: %v", c.primary, c.standby, err)
		}
		s.Close()
	}
}

// Who says another version in the middle of a stream has lost track of it.
func TestMessageOfAnotherVersionEndsTheStream(t *testing.T) {
	ended := make(chan error, 1)
	addr := serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		_, err := s.Recv()
		ended <- err
		return err
	})
	s := dial(t, addr)
	msg, err := wire.AppendBatch(nil, wire.Batch{Epoch: s.hello.Epoch, Stream: s.hello.Stream, Version: 3, Frames: []wire.Frame{{Kind: wire.Ping, ID: 1}}}, wire.NoSize)
	if err != nil {
		t.Fatal(err)
	}
	sendRaw(t, s, msg)
	if err := receive(t, "the end", ended); !errors.Is(err, ErrProtocol) {
		t.Errorf("frames of version 3 on a stream of version %d: %v", s.Version(), err)
	}
}

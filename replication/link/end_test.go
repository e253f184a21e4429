package link

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// A standby that does not read stops the sender; Close frees the sender, the standby and all memory.
func TestCloseEndsBlockedSendAndReturnsEveryBuffer(t *testing.T) {
	ended, closed := make(chan error, 1), make(chan struct{})
	s := dial(t, serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		<-closed
		for {
			b, err := s.Recv()
			if err != nil {
				ended <- err
				return err
			}
			b.Free()
		}
	}))
	box := NewOutbox(s, OutboxLimits{Bytes: 1 << 30})
	var bufs []*blockdev.Buf
	for seq := uint64(1); seq <= 64; seq++ { // more than two sockets hold
		bufs = append(bufs, fill(1<<20, byte(seq)))
		if err := box.Put(writeFrame(seq, bufs[seq-1])); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 2)
	go func() { done <- box.Run(t.Context()) }()
	go func() {
		_, err := s.Recv()
		done <- err
	}()
	box.Flush()
	eventually(t, "the sockets to fill", func() bool {
		box.pump.mu.Lock()
		defer box.pump.mu.Unlock()
		return box.pump.owner == writer
	})
	s.Close()
	for range 2 {
		if err := receive(t, "Run and Recv", done); !errors.Is(err, ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	close(closed)
	if err := receive(t, "the standby", ended); !errors.Is(err, ErrEnded) {
		t.Errorf("standby: %v, want %v", err, ErrEnded)
	}
	if box.Queued() != 0 {
		t.Errorf("%d bytes are left in the outbox", box.Queued())
	}
	mustReturn(t, bufs...)
}

// R21, R23: the reason for which a standby ends the stream reaches a primary that had much more to say.
func TestRefusalReachesAPrimaryThatIsStillSending(t *testing.T) {
	s := dial(t, serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		b, err := s.Recv()
		if err != nil {
			return err
		}
		b.Free()
		err = s.Send(wire.Reply{Kind: wire.Nack, Seq: 1, Code: wire.WriteFailed, Text: "no more"})
		s.Close()
		return err
	}))
	sent := make(chan error, 1)
	go func() {
		var err error
		b := fill(1<<20, 1)
		defer b.Free()
		for seq := uint64(1); err == nil; seq++ {
			err = s.Send([]wire.Frame{writeFrame(seq, b)})
		}
		sent <- err
	}()
	replies, err := s.Recv()
	if err != nil || replies[0].Kind != wire.Nack || replies[0].Code != wire.WriteFailed {
		t.Errorf("%v, %v; want the refusal", brief(replies), err)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Errorf("after the refusal: %v, want %v", err, ErrEnded)
	}
	if err := receive(t, "Send", sent); !errors.Is(err, ErrEnded) {
		t.Errorf("Send: %v, want %v", err, ErrEnded)
	}
}

func TestSessionCloseEndsBothSides(t *testing.T) {
	ended := make(chan error, 1)
	s := dial(t, serve(t, func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		go s.Close()
		_, err := s.Recv()
		<-ctx.Done()
		ended <- err
		return err
	}))
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Errorf("primary: %v, want %v", err, ErrEnded)
	}
	if err := receive(t, "the standby", ended); !errors.Is(err, ErrClosed) {
		t.Errorf("standby: %v, want %v", err, ErrClosed)
	}
}

func TestPrimaryLearnsWhyTheStandbyEnded(t *testing.T) {
	s := dial(t, serve(t, func(_ context.Context, s *Session) error {
		return errors.Join(accept(s), errors.New("the disk is on fire"))
	}))
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("%v", err)
	}
}

// faults.md G50: a connection cut in mid-batch ends both sides, and nothing of the torn message is handed on.
func TestG50CutInMidBatchHandsNothingOn(t *testing.T) {
	ended := make(chan error, 1)
	addr := serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for {
			b, err := s.Recv()
			if err != nil {
				ended <- err
				return err
			}
			for i := range b.Frames {
				if err := b.Frames[i].Verify(); err != nil {
					t.Error(err)
				}
			}
			b.Free()
		}
	})
	s, _, err := Dial(t.Context(), &tearing{Conn: connect(t, addr), left: 3 << 20}, hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for seq := uint64(1); err == nil; seq++ {
		err = s.Send([]wire.Frame{writeFrame(seq, fill(2<<20, byte(seq)))})
	}
	if !errors.Is(err, ErrEnded) {
		t.Errorf("sender: %v, want %v", err, ErrEnded)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Errorf("sender's receiver: %v, want %v", err, ErrEnded)
	}
	if err := receive(t, "the standby", ended); !errors.Is(err, ErrEnded) {
		t.Errorf("standby: %v, want %v", err, ErrEnded)
	}
}

// tearing closes itself after so many bytes were written, in the middle of whatever that is.
type tearing struct {
	net.Conn
	left int
}

func (c *tearing) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		c.Conn.Close()
	}
	return c.Conn.Write(p)
}

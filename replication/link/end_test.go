package link

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// A standby that does not read stops the sender by flow control; Close frees the sender, the standby and all memory.
func TestCloseEndsBlockedSendAndReturnsEveryBuffer(t *testing.T) {
	ended := make(chan error, 1)
	s := dial(t, serve(t, func(ctx context.Context, s *Session) error {
		err := accept(s)
		<-ctx.Done()
		ended <- err
		return ctx.Err()
	}))
	var bufs []*blockdev.Buf
	done := make(chan error, 2)
	go func() {
		for seq := uint64(1); ; seq++ {
			b := fill(1<<20, byte(seq))
			bufs = append(bufs, b)
			if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
				done <- err
				return
			}
		}
	}()
	go func() {
		_, err := s.Recv()
		done <- err
	}()
	// The window is 4 MiB: long before 64 are on their way, Send waits.
	eventually(t, "the window to fill", func() bool { return s.sent.Load() > streamWindow>>20 })
	s.Close()
	for range 2 {
		if err := receive(t, "Send and Recv", done); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v, want %v", err, ErrClosed)
		}
	}
	if err := receive(t, "the standby", ended); err != nil {
		t.Errorf("standby: %v", err)
	}
	if len(bufs) > 64 {
		t.Errorf("%d MiB were taken from the sender and not read by anybody", len(bufs))
	}
	mustReturn(t, bufs...)
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
	var cut net.Conn
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
	s, _, err := Dial(t.Context(), connect(t, addr, func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := tcpDial(ctx, addr)
		if cut == nil {
			cut = &tearing{Conn: c, left: 3 << 20}
		}
		return cut, err
	}), hello())
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

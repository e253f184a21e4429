package consensustest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// pair connects a to b.
func pair(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	a, err := n.Listen("a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Listen("b")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := b.Accept()
		accepted <- c
	}()
	near, err = a.Dial(context.Background(), "b")
	if err != nil {
		t.Fatal(err)
	}
	return near, <-accepted
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q", b, err, want)
	}
}

func TestBytesWaitWhileALinkIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		near, far := pair(t, n)
		send(t, near, "before ")
		n.Cut("a", "b")
		send(t, near, "during")
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		if k, err := far.Read(make([]byte, 9)); k != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d bytes over a cut link, %v", k, err)
		}
		send(t, far, "other direction")
		receive(t, near, "other direction")
		_ = far.SetReadDeadline(time.Time{})
		n.Heal("a", "b")
		receive(t, far, "before during")
		_ = near.Close()
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
		if _, err := far.Write([]byte("x")); err == nil {
			t.Error("wrote to a closed connection")
		}
	})
}

func TestDialOverACutLinkGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		a, _ := n.Listen("a")
		b, _ := n.Listen("b")
		n.Cut("b", "a") // answers do not come back
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := a.Dial(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, err := n.Listen("b"); err == nil {
			t.Error("one address, two members")
		}
		_ = b.Close()
		n.Heal("b", "a")
		if _, err := a.Dial(t.Context(), "b"); err == nil {
			t.Error("connected to a member that is gone")
		}
	})
}

func TestWriterWaitsForAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := pair(t, NewNetwork())
		_ = near.SetWriteDeadline(time.Now().Add(time.Second))
		if k, err := near.Write(make([]byte, maxUnread+1)); k != maxUnread || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d bytes, %v", k, err)
		}
		_ = near.SetWriteDeadline(time.Time{})
		done := make(chan error, 1)
		go func() {
			_, err := near.Write(make([]byte, 100))
			done <- err
		}()
		synctest.Wait()
		if _, err := io.ReadFull(far, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// secured is a listener that speaks TLS, and what connects to it.
func secured(t *testing.T, h handlerFunc) (dial func() net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"beta"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, NewServer(h, slog.New(slog.DiscardHandler)), l)
	return func() net.Conn {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // whom to trust is not this package's
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// Over TLS, small messages go from whoever flushes, as long as the socket below has room.
func TestTLSCarriesTheStreamAndIsTried(t *testing.T) {
	s, _, err := Dial(t.Context(), secured(t, apply(nil))(), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	box := NewOutbox(s, OutboxLimits{})
	stop := running(t, box.Run)
	b, large := fill(4096, 1), fill(1<<20, 2)
	put(t, box, writeFrame(1, b))
	box.Flush()
	if q := box.Queued(); q != 0 {
		t.Errorf("%d bytes wait for the writer goroutine though the socket is empty", q)
	}
	seq := uint64(1)
	for range 30 {
		put(t, box, writeFrame(seq+1, b), writeFrame(seq+2, large), wire.Frame{Kind: wire.Ping, ID: 1})
		seq += 2
		box.Flush()
	}
	acked := uint64(0)
	for acked < seq {
		replies, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		acked = replies[len(replies)-1].Seq
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	mustReturn(t, b, large)
}

// R21, R23 over TLS: the refusal arrives though the primary had much more to say, and Close frees a Send that waits.
func TestTLSRefusalReachesAPrimaryThatIsStillSending(t *testing.T) {
	s, _, err := Dial(t.Context(), secured(t, func(_ context.Context, s *Session) error {
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
	})(), hello())
	if err != nil {
		t.Fatal(err)
	}
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
	if err != nil || replies[0].Kind != wire.Nack {
		t.Errorf("%v, %v; want the refusal", brief(replies), err)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Errorf("after the refusal: %v, want %v", err, ErrEnded)
	}
	if err := receive(t, "Send", sent); err == nil {
		t.Error("Send goes on")
	}
}

// Close does not wait for a Write that waits.
func TestTLSCloseEndsABlockedSend(t *testing.T) {
	hold := make(chan struct{})
	s, _, err := Dial(t.Context(), secured(t, func(_ context.Context, s *Session) error {
		err := accept(s)
		<-hold
		return err
	})(), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer close(hold)
	box := NewOutbox(s, OutboxLimits{Bytes: 1 << 30})
	var bufs []*blockdev.Buf
	for seq := uint64(1); seq <= 64; seq++ {
		bufs = append(bufs, fill(1<<20, byte(seq)))
		put(t, box, writeFrame(seq, bufs[seq-1]))
	}
	done := make(chan error, 1)
	go func() { done <- box.Run(t.Context()) }()
	box.Flush()
	eventually(t, "the sockets to fill", func() bool {
		box.pump.mu.Lock()
		defer box.pump.mu.Unlock()
		return box.pump.owner == writer
	})
	s.Close()
	if err := receive(t, "Run", done); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Run: %v", err)
	}
	mustReturn(t, bufs...)
}

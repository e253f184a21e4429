package identity

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// The like of faults.md N14: TLS handshakes that stop half way are bounded in number and time.
func TestGoodCallerGetsThroughHalfOpenHandshakes(t *testing.T) {
	ours := shop(t)
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha", MaxHandshakes: 32, HandshakeTimeout: time.Hour}, ProtoRaft)
	tr := dialer(t, ours, "beta", "alpha")
	hello := clientHello(t)
	var half []net.Conn
	for i := range 200 {
		c := f.raw()
		c.Write(hello[:len(hello)*(i%4)/3]) // nothing, parts, and the whole of it
		half = append(half, c)
	}
	c, err := tr.Dial(t.Context(), f.addr(), ProtoRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := works(c); err != nil {
		t.Fatal(err)
	}
	if s := f.mux.Stats(); s.Handshakes > 32 {
		t.Errorf("%d handshakes, the limit is 32", s.Handshakes)
	}
	for _, c := range half {
		c.Close()
	}
}

// clientHello is the first flight of a handshake.
func clientHello(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		defer b.Close()
		tls.Client(b, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(t.Context())
	}()
	buf := make([]byte, 4096)
	n, err := a.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestHalfOpenTLSHandshakeEndsAtTheDeadline(t *testing.T) {
	f := start(t, Config{PKI: shop(t).Path, Cluster: "shop", Node: "alpha", HandshakeTimeout: 50 * time.Millisecond}, ProtoRaft)
	c := f.raw()
	c.Write(clientHello(t))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 4096)
	for { // its half of the handshake comes, then the end
		if _, err := c.Read(buf); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("it stays open")
			}
			break
		}
	}
	f.eventually(func() bool { return f.mux.Stats().Refusals[errSlow.Error()] == 1 })
}

// One stranger's many connections crowd out its own, not those of others.
func TestTheAddressWithMostHandshakesLosesOne(t *testing.T) {
	f := start(t, Config{MaxHandshakes: 8, HandshakeTimeout: time.Hour}, ProtoRaft)
	from := func(host string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
		c, err := d.Dial("tcp", f.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	good := from("127.0.0.9")
	for range 100 {
		from("127.0.0.8")
	}
	f.mustWork(ProtoRaft) // behind all of them
	p := newPreface(ProtoRaft)
	good.Write(p[:])
	if err := works(good); err != nil {
		t.Errorf("the patient one was closed for the crowd: %v", err)
	}
}

package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
)

// patience bounds what must happen soon; no test passes by its running out.
const patience = 30 * time.Second

// asked is a node that answers one question.
type asked struct{ Handler }

func (asked) Hello(context.Context, *Hello) (*HelloReply, error) {
	return &HelloReply{Node: "beta"}, nil
}

// serve runs a server on a loopback port and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(ServerOptions()...)
	Register(srv, asked{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Stop()
		wg.Wait()
	})
	return l.Addr().String()
}

// mustAnswer asks as a good client does.
func mustAnswer(t *testing.T, addr string) {
	t.Helper()
	conn, err := Connect(addr, func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if r, err := (Client{Conn: conn}).Hello(ctx, &Hello{Version: Version}); err != nil || r.Node != "beta" {
		t.Errorf("a good client: %v, %v", r, err)
	}
}

// rawClient speaks HTTP/2 without any of a client's manners.
type rawClient struct {
	net.Conn
	fr *http2.Framer
}

func rawConnect(t *testing.T, addr string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	r := &rawClient{Conn: c, fr: http2.NewFramer(c, c)}
	if err := r.fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

var helloCall = [][2]string{
	{":method", "POST"}, {":scheme", "http"}, {":path", "/" + serviceName + "/Hello"},
	{":authority", "x"}, {"content-type", "application/grpc+" + codecName}, {"te", "trailers"},
}

// literal is the header block of a call, encoded so that no table changes: the same bytes are valid again and again.
func literal() (out []byte) {
	str := func(s string) { out = append(append(out, byte(len(s))), s...) }
	for _, h := range helloCall {
		out = append(out, 0x10) // literal, never indexed, new name
		str(h[0])
		str(h[1])
	}
	return out
}

// faults.md G56: of 10,000 streams that one connection opens, those beyond the cap are refused, and others are served.
func TestG56StreamsOfOneConnectionAreCapped(t *testing.T) {
	const streams = 10_000
	addr := serve(t)
	c := rawConnect(t, addr)
	sent := make(chan error, 1)
	go func() {
		block := literal()
		for i := range uint32(streams) {
			if err := c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for refused := 0; refused < streams-maxStreams; {
		f, err := c.fr.ReadFrame()
		if err != nil {
			t.Fatalf("after %d refusals: %v", refused, err)
		}
		if rst, ok := f.(*http2.RSTStreamFrame); ok {
			if rst.ErrCode != http2.ErrCodeRefusedStream {
				t.Fatalf("stream %d ended with %v", rst.StreamID, rst.ErrCode)
			}
			refused++
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, addr)
}

// faults.md G56: headers over the limit cost the stream or the connection, and are not unpacked.
func TestG56HeaderBombIsRefused(t *testing.T) {
	c := rawConnect(t, serve(t))
	// One long field, then a thousand one-byte references to it: 5 KiB that would become 4 MiB.
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range append(helloCall, [2]string{"bomb", string(bytes.Repeat([]byte("b"), 4000))}) {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	bomb := append(block.Bytes(), bytes.Repeat([]byte{0x80 | 62}, 1000)...)
	if err := c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bomb, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if err := untilRefused(c); err != nil {
		t.Fatal(err)
	}
}

// untilRefused reads until the server has reset stream 1 or ended the connection. An answer in headers would mean that
// the server took the call.
func untilRefused(c *rawClient) error {
	for {
		f, err := c.fr.ReadFrame()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return fmt.Errorf("the server did nothing: %w", err)
		case err != nil:
			return nil
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return nil
		case *http2.HeadersFrame:
			return fmt.Errorf("the call was taken and answered: %v", f)
		}
	}
}

// faults.md G56: a flood of pings ends the connection that sends it.
func TestG56PingFloodEndsTheConnection(t *testing.T) {
	addr := serve(t)
	c := rawConnect(t, addr)
	go func() {
		for c.fr.WritePing(false, [8]byte{}) == nil {
		}
	}()
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("the flood is not ended")
			}
			break
		}
		if g, ok := f.(*http2.GoAwayFrame); ok && g.ErrCode == http2.ErrCodeEnhanceYourCalm {
			break
		}
	}
	mustAnswer(t, addr)
}

// faults.md G47: a request over the limit is refused before it is decoded.
func TestG47OversizedRequestIsRefused(t *testing.T) {
	addr := serve(t)
	conn, err := Connect(addr, func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := (Client{Conn: conn}).Hello(t.Context(), &Hello{From: string(make([]byte, maxRequest+1))}); err == nil {
		t.Error("taken")
	}
	mustAnswer(t, addr)
}

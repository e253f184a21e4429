package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

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

func callHeaders(extra ...hpack.HeaderField) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/" + serviceName + "/" + streamName},
		{Name: ":authority", Value: "x"}, {Name: "content-type", Value: "application/grpc+" + codecName}, {Name: "te", Value: "trailers"},
	}, extra...) {
		_ = enc.WriteField(h)
	}
	return block.Bytes()
}

// faults.md G56: of 10,000 streams that one connection opens, those beyond the cap are refused, and others are served.
func TestG56StreamsOfOneConnectionAreCapped(t *testing.T) {
	const streams = 10_000
	addr := serve(t, apply(nil))
	c := rawConnect(t, addr)
	sent := make(chan error, 1)
	go func() {
		for i := range uint32(streams) {
			// A fresh table each time: the same bytes are valid again and again.
			if err := c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: literal, EndHeaders: true}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	refused := 0
	for refused < streams-maxStreams {
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
	dial(t, addr)
}

// literal is the header block of a call, encoded so that no table changes.
var literal = func() []byte {
	var out []byte
	str := func(s string) { out = append(append(out, byte(len(s))), s...) }
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/" + serviceName + "/" + streamName},
		{":authority", "x"}, {"content-type", "application/grpc+" + codecName}, {"te", "trailers"},
	} {
		out = append(out, 0x10) // literal, never indexed, new name
		str(h[0])
		str(h[1])
	}
	return out
}()

// faults.md G56: headers over the limit cost the stream or the connection, and are not unpacked.
func TestG56HeaderBombIsRefused(t *testing.T) {
	addr := serve(t, func(context.Context, *Session) error {
		t.Error("the handler was called")
		return nil
	})
	c := rawConnect(t, addr)
	// One long field, then a thousand one-byte references to it: 5 KiB that would become 4 MiB.
	block := callHeaders(hpack.HeaderField{Name: "bomb", Value: string(bytes.Repeat([]byte("b"), 4000))})
	block = append(block, bytes.Repeat([]byte{0x80 | 62}, 1000)...)
	if err := c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}); err != nil {
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
	addr := serve(t, apply(nil))
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
	dial(t, addr)
}

package link

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"hacluster/replication/wire"
)

// script is a connection on which a fixed sequence of bytes arrives, a few at a time.
type script struct {
	net.Conn
	r    io.Reader
	step int
}

func (s *script) Read(p []byte) (int, error)      { return s.r.Read(p[:min(len(p), s.step)]) }
func (s *script) Write(p []byte) (int, error)     { return len(p), nil }
func (s *script) Close() error                    { return nil }
func (s *script) SetDeadline(time.Time) error     { return nil }
func (s *script) SetReadDeadline(time.Time) error { return nil }

// Whatever bytes a primary sends and however they are cut, a standby hands on only frames within the volume with no more
// payload than was sent, and ends without a panic. How they are cut changes nothing.
func FuzzReceivedStream(f *testing.F) {
	b := fill(4096, 1)
	defer b.Free()
	batch, err := wire.AppendBatch(make([]byte, prefixSize), wire.Batch{Epoch: 7, Stream: 3, Frames: []wire.Frame{writeFrame(1, b)}}, wire.NoSize)
	if err != nil {
		f.Fatal(err)
	}
	putPrefix(batch, len(batch)-prefixSize, 4096)
	batch = append(batch, b.Bytes()...)
	f.Add(batch, uint16(1000))
	f.Add(append(bytes.Clone(batch), batch...), uint16(7))
	f.Add(goodbyeMessage(io.EOF), uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, step uint16) {
		once := received(t, stream, len(stream)+1)
		if again := received(t, stream, int(step)+1); once != again {
			t.Fatalf("%d frames in one piece, %d in pieces of %d bytes", once, again, step)
		}
	})
}

func received(t *testing.T, stream []byte, step int) (frames int) {
	s := newSession(&script{r: bytes.NewReader(stream), step: step})
	defer s.in.close()
	s.hello = hello()
	for {
		b, err := s.Recv()
		if err != nil {
			return frames
		}
		payload := 0
		for i := range b.Frames {
			payload += b.Frames[i].PayloadLen()
			if r := b.Frames[i].Range; !r.Within(s.hello.Size) {
				t.Fatalf("%v is handed on for %d bytes", r, s.hello.Size)
			}
			_ = b.Frames[i].Verify()
		}
		if payload > len(stream) {
			t.Fatalf("%d payload bytes out of a stream of %d", payload, len(stream))
		}
		frames += len(b.Frames)
		b.Free()
	}
}

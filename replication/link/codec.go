package link

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// codecName is the content subtype of the data path. Methods with protobuf messages share the server.
const codecName = "hablk"

func init() { encoding.RegisterCodecV2(codec{}) }

// codec passes messages through as they are. It serves this package's two types and refuses all others, so that a
// stranger's call with this content type to another method is an error and nothing else.
type codec struct{}

func (codec) Name() string { return codecName }

// Marshal gives the message's references to gRPC, which frees them when the bytes are written or the stream is over.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*outgoing)
	if !ok {
		return nil, fmt.Errorf("codec %q does not encode %T", codecName, v)
	}
	bufs := m.bufs
	m.bufs = nil
	return bufs, nil
}

// Unmarshal keeps a reference to each segment.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*incoming)
	if !ok {
		return fmt.Errorf("codec %q does not decode %T", codecName, v)
	}
	data.Ref()
	m.bufs = data
	return nil
}

// outgoing is a message on its way to gRPC. It owns one reference to each buffer until Marshal.
type outgoing struct{ bufs mem.BufferSlice }

// free returns what Marshal was never asked for.
func (m *outgoing) free() {
	m.bufs.Free()
	m.bufs = nil
}

// incoming is a received message; it owns one reference to each buffer.
type incoming struct {
	bufs     mem.BufferSlice
	segments [][]byte
}

// view lists the message's bytes, valid until free.
func (m *incoming) view() [][]byte {
	m.segments = m.segments[:0]
	for _, b := range m.bufs {
		m.segments = append(m.segments, b.ReadOnlyData())
	}
	return m.segments
}

func (m *incoming) free() {
	m.bufs.Free()
	m.bufs = nil
	clear(m.segments)
}

// bufsOf puts a batch's payloads behind its encoded head.
func bufsOf(head []byte, frames []wire.Frame) mem.BufferSlice {
	n := 1
	for i := range frames {
		if frames[i].Buf != nil {
			n++
		}
	}
	bufs := make(mem.BufferSlice, 1, n)
	bufs[0] = mem.SliceBuffer(head)
	for i := range frames {
		if frames[i].Buf != nil {
			bufs = append(bufs, lend(frames[i].Buf))
		}
	}
	return bufs
}

// lend makes a buffer of gRPC's kind out of a Buf. It takes a reference, which the buffer's last Free gives back.
func lend(buf *blockdev.Buf) mem.Buffer {
	if b := buf.Bytes(); mem.IsBelowBufferPoolingThreshold(cap(b)) {
		// gRPC does not count references to so little memory: it would never be given back.
		return mem.SliceBuffer(append([]byte(nil), b...))
	}
	buf.Ref()
	l, _ := loans.Get().(*loan)
	if l == nil {
		l = new(loan)
	}
	l.buf, l.data = buf, buf.Bytes()
	return mem.NewBuffer(&l.data, l)
}

var loans sync.Pool

// loan is a Buf in gRPC's hands. It poses as the pool from which its memory came, because putting memory back into
// its pool is the one thing that gRPC tells about a buffer's end.
type loan struct {
	data []byte
	buf  *blockdev.Buf
}

// Get is never called: nothing is taken out of a loan.
func (l *loan) Get(int) *[]byte { panic("link: memory asked of a loan") }

// Put ends the loan.
func (l *loan) Put(*[]byte) {
	buf := l.buf
	l.buf, l.data = nil, nil
	loans.Put(l)
	buf.Free()
}

package link

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"

	"hacluster/blockdev"
	"hacluster/replication/shape"
	"hacluster/replication/wire"
)

// What is compressed: the payloads of a message as one block, so that similar ones help each other. Less is not worth the call,
// and more would keep the line waiting meanwhile: a single write that large goes as it is.
const (
	minPacked = 512
	maxPacked = wire.MaxBatchPayload
)

// packer compresses the messages of one stream, as its line is set to and as it pays. Its owner is who sends, but for on.
type packer struct {
	line *Line
	pack shape.Pack
	on   atomic.Bool   // messages are compressed: by the writer goroutine, not by who puts them
	out  *blockdev.Buf // the message that is on its way; nil: it is not compressed
}

// take returns pieces, n bytes together, as one compressed block; nil: they go as they are. It is valid until release.
func (k *packer) take(pieces [][]byte, n int) []byte {
	how := k.line.compress()
	if how == shape.Off || n < minPacked || n > maxPacked || how == shape.Auto && !k.pack.Next(n) {
		k.on.Store(how == shape.On || how == shape.Auto && k.pack.Compresses())
		return nil
	}
	began := time.Now()
	src, joined := pieces[0], (*blockdev.Buf)(nil)
	if len(pieces) > 1 {
		joined = join(pieces, n)
		src = joined.Bytes()
	}
	k.out = blockdev.NewBuf(s2.MaxEncodedLen(n))
	packed := s2.Encode(k.out.Bytes(), src)
	if joined != nil {
		joined.Free()
	}
	k.pack.Packed(n, len(packed), time.Since(began))
	k.on.Store(how == shape.On || k.pack.Compresses())
	if len(packed) >= n {
		k.release()
		return nil
	}
	return packed
}

func join(pieces [][]byte, n int) *blockdev.Buf {
	b := blockdev.NewBuf(n)
	to := b.Bytes()
	for _, p := range pieces {
		to = to[copy(to, p):]
	}
	return b
}

// through tells that a message of n bytes is, as it was sent, and how long that took.
func (k *packer) through(n int, took time.Duration) {
	if k.line.compress() == shape.Auto {
		k.pack.Sent(n, took, k.line.rate.Load())
		k.on.Store(k.pack.Compresses())
	}
	k.release()
}

// release gives the memory of the message back, which is through.
func (k *packer) release() {
	if k.out != nil {
		k.out.Free()
		k.out = nil
	}
}

// unpack takes n bytes that are the compressed payloads of a batch whose records were checked. What they come to is known from
// those: a block that says otherwise is refused before memory is taken for it (R28).
func (b *Batch) unpack(in *input, n int) error {
	in.ahead = chunkSize
	var src []byte
	if n < largePayload {
		p, err := in.take(n)
		if err != nil {
			return within(err)
		}
		src = p
	} else {
		packed := blockdev.NewBuf(n)
		defer packed.Free()
		if err := in.into(packed.Bytes()); err != nil {
			return err
		}
		src = packed.Bytes()
	}
	want := b.PayloadLen()
	if got, err := s2.DecodedLen(src); err != nil || got != want {
		return spoilt("a compressed block that says it has %d bytes (%v), for frames that have %d", got, err, want)
	}
	b.buf = blockdev.NewBuf(want)
	if _, err := s2.Decode(b.buf.Bytes(), src); err != nil {
		return spoilt("a compressed block of %d bytes, for %d: %v", n, want, err)
	}
	b.piece[0] = b.buf.Bytes()
	return nil
}

// spoilt: a block that cannot be what was sent counts as a payload whose checksum does not match (R21). It has none of its own.
func spoilt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", wire.ErrChecksum, protocolError(format, args...))
}

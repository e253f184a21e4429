package blockdev

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Buf is a pooled, reference-counted block buffer whose memory starts at a multiple of BlockSize, so that it can go
// from a socket to O_DIRECT and to a peer without a copy. The zero Buf is not usable; NewBuf returns one with one
// reference.
type Buf struct {
	data  []byte
	whole []byte
	class int8
	refs  atomic.Int32
}

const (
	minClass = 12 // 4 KiB
	maxClass = 25 // 32 MiB
)

var pools [maxClass - minClass + 1]sync.Pool

// NewBuf returns a buffer of n bytes, content undefined. Above 32 MiB it is not pooled.
func NewBuf(n int) *Buf {
	c := max(bits.Len(uint(max(n, 1)-1)), minClass)
	var b *Buf
	switch {
	case c > maxClass:
		b = &Buf{whole: Aligned(n), class: -1}
	default:
		if b, _ = pools[c-minClass].Get().(*Buf); b == nil {
			b = newClass(int8(c))
		}
	}
	b.data = b.whole[:n]
	b.refs.Store(1)
	return b
}

func newClass(c int8) *Buf {
	if c >= minSlabClass {
		return newSlab(c)
	}
	return &Buf{whole: Aligned(1 << c), class: c}
}

// Aligned returns n bytes of memory that start at a multiple of BlockSize.
func Aligned(n int) []byte {
	raw := make([]byte, n+BlockSize)
	skip := 0
	if rest := int(uintptr(unsafe.Pointer(&raw[0])) % BlockSize); rest != 0 {
		skip = BlockSize - rest
	}
	return raw[skip : skip+n : skip+n]
}

// Bytes is the content. It is valid while the caller holds a reference.
func (b *Buf) Bytes() []byte { return b.data }

// Ref takes one more reference.
func (b *Buf) Ref() { b.refs.Add(1) }

// Free gives one reference back; the last one returns the memory to the pool. Freeing more often than referenced is
// a broken invariant and panics.
func (b *Buf) Free() {
	switch n := b.refs.Add(-1); {
	case n > 0:
	case n < 0:
		panic("blockdev: Buf freed more often than referenced")
	case b.class >= 0:
		pools[b.class-minClass].Put(b)
	}
}

package link

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// segmentPool is where gRPC takes the memory from into which it reads. Its own pool clears what it hands out, which is
// 5 % of a standby's work and protects nothing here, for every byte is read over; and it knows no size between 4 and
// 16 KiB, though most messages are a 4 KiB block and its records.
type segmentPool struct {
	classes [maxSegment - minSegment + 1]sync.Pool
}

const (
	minSegment = 11 // 2 KiB; what is smaller never comes back to a pool
	maxSegment = 16 // 64 KiB; nothing that gRPC reads at once is larger than 16
)

var segments mem.BufferPool = new(segmentPool)

// Get returns n bytes of undefined content.
func (p *segmentPool) Get(n int) *[]byte {
	c := max(bits.Len(uint(max(n, 1)-1)), minSegment)
	if c > maxSegment {
		b := make([]byte, n)
		return &b
	}
	b, _ := p.classes[c-minSegment].Get().(*[]byte)
	if b == nil {
		fresh := make([]byte, 1<<c)
		b = &fresh
	}
	*b = (*b)[:n]
	return b
}

// Put takes memory back that Get handed out; other memory is left to the garbage collector.
func (p *segmentPool) Put(b *[]byte) {
	c := bits.Len(uint(cap(*b))) - 1
	if c < minSegment || c > maxSegment || cap(*b) != 1<<c {
		return
	}
	*b = (*b)[:cap(*b)]
	p.classes[c-minSegment].Put(b)
}

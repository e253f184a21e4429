package link

import (
	"sync"
	"sync/atomic"
)

// chunk is memory into which a connection is read; messages are cut from it without a copy. Its reader holds one
// reference, each Batch with a payload in it another one.
type chunk struct {
	mem  []byte
	refs atomic.Int32
}

// chunkSize is that of pooled chunks: what a read takes at most, so fifteen writes of 4 KiB. A thousand idle volumes
// hold as many chunks.
const chunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { return &chunk{mem: make([]byte, chunkSize)} }}

// newChunk returns a chunk of at least n bytes with one reference. Above chunkSize it is not pooled.
func newChunk(n int) *chunk {
	c := &chunk{}
	if n <= chunkSize {
		c = chunks.Get().(*chunk)
	} else {
		c.mem = make([]byte, n)
	}
	c.refs.Store(1)
	return c
}

func (c *chunk) ref() { c.refs.Add(1) }

func (c *chunk) free() {
	switch n := c.refs.Add(-1); {
	case n > 0:
	case n < 0:
		panic("link: memory freed more often than referenced")
	case len(c.mem) == chunkSize:
		chunks.Put(c)
	}
}

package consensus

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection that the stream knows of.
type conn struct {
	net.Conn
	stream  *stream
	inbound bool
	once    sync.Once
	budget  atomic.Int64 // inbound: bytes that may be read before something is written
}

// Read refuses a request that is larger than any that raft sends. Raft's decoder grows with what it reads.
func (c *conn) Read(p []byte) (int, error) {
	if !c.inbound {
		return c.Conn.Read(p)
	}
	left := c.budget.Load()
	if left <= 0 {
		return 0, fmt.Errorf("request from %v exceeds %d bytes", c.RemoteAddr(), int64(maxUnanswered))
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), left)])
	c.budget.Add(-int64(n))
	return n, err
}

// Write bounds how long an answer may take; raft sets deadlines on its own requests only.
func (c *conn) Write(p []byte) (int, error) {
	if c.inbound {
		c.budget.Store(maxUnanswered)
		_ = c.Conn.SetWriteDeadline(time.Now().Add(rpcTimeout))
	}
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.stream.mu.Lock()
		delete(c.stream.conns, c)
		if c.inbound {
			c.stream.inbound--
		}
		c.stream.mu.Unlock()
	})
	return c.Conn.Close()
}

package nbdclient

import (
	"fmt"
	"net"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// Op is one request for Start.
type Op struct {
	Cmd   nbdproto.Cmd
	Flags nbdproto.CmdFlags
	Range blockdev.Range
	// Data is a write's payload or where a read puts its data; it belongs to the Client until the call has ended. Its
	// length is Range.Len.
	Data []byte
}

// Call is a request on its way.
type Call struct {
	Op      Op
	Extents []Extent // the answer of BLOCK_STATUS
	err     error
	got     int64 // bytes of a read that have come
	done    chan struct{}
}

// Extent is one stretch of a BLOCK_STATUS answer.
type Extent struct {
	Range blockdev.Range
	State uint32 // nbdproto.StateHole and StateZero
}

// Wait blocks until the call has ended and returns its outcome.
func (k *Call) Wait() error {
	<-k.done
	return k.err
}

// Done is closed when the call has ended.
func (k *Call) Done() <-chan struct{} { return k.done }

// Start sends a request without waiting for its answer. It blocks while Window requests are in flight. Calls that are
// started one after the other arrive in this order.
func (c *Client) Start(op Op) *Call {
	k := &Call{Op: op, done: make(chan struct{})}
	select {
	case c.window <- struct{}{}:
	case <-c.dead:
		k.end(c.unsent(op))
		return k
	}
	select {
	case c.turn <- struct{}{}:
	case <-c.dead:
		<-c.window
		k.end(c.unsent(op))
		return k
	}
	c.send(k)
	<-c.turn
	return k
}

// send registers the call, then writes it: the answer may be there before write returns.
func (c *Client) send(k *Call) {
	c.mu.Lock()
	if c.cause != nil || c.closing {
		c.mu.Unlock()
		<-c.window
		k.end(c.unsent(k.Op))
		return
	}
	c.cookie++
	req := nbdproto.Request{
		Magic: nbdproto.MagicRequest, Flags: k.Op.Flags, Cmd: k.Op.Cmd, Cookie: c.cookie,
		Offset: uint64(k.Op.Range.Off), Len: uint32(k.Op.Range.Len),
	}
	c.pending[c.cookie] = k
	c.mu.Unlock()
	bufs := net.Buffers{nbdproto.AppendRequest(nil, req)}
	if k.Op.Cmd == nbdproto.CmdWrite {
		bufs = append(bufs, k.Op.Data)
	}
	if _, err := bufs.WriteTo(c.nc); err != nil {
		c.fail(err) // the receiver ends all calls, this one too
	}
}

func (k *Call) end(err error) {
	k.err = err
	close(k.done)
}

// unsent is the outcome of a call for which the connection had no more use.
func (c *Client) unsent(op Op) error {
	c.mu.Lock()
	closing := c.closing
	c.mu.Unlock()
	if closing {
		return fmt.Errorf("nbd command %d on %v at %s: %w", op.Cmd, op.Range, c.names, blockdev.ErrClosed)
	}
	return c.lost(op)
}

// lost is the outcome of a call on a dead connection.
func (c *Client) lost(op Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("nbd command %d on %v at %s: %w (%w)", op.Cmd, op.Range, c.names, ErrConnectionLost, c.cause)
}

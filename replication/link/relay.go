package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/hot"
	"hacluster/replication/wire"
)

// relay carries a stream on: from a primary, for whom we are the standby's end of the connection, to the standby that it is for, for
// whom we are the primary's. It looks at lengths, and puts in payloads that were left out (lend.go). What is said is checked at the two
// ends, whose stream it stays. So nothing is acknowledged here, and who relays decides nothing.
//
//	primary --> read --> queue --> send --> standby
//	primary <--------- replies <----------- standby
type relay struct {
	s     *Session // to the primary
	feed  *Feed    // what lent payloads come from
	conn  net.Conn // to the standby
	in    *input   // of conn
	to    *pacedOutput
	queue relayQueue
	gone  chan struct{} // closed when conn is: nothing waits for its turn on the line
	over  sync.Once
}

// stuckTime is how long one of the two ends may take nothing, beyond what a message takes on the slowest line, until a stream that is
// carried on is over: its primary knows long before that it gets no answers, and may be gone.
var stuckTime = time.Minute

const slowestLine = 125_000 // bytes a second

// Relay answers the greeting of s, which came to this node to be carried on to the standby at the other end of conn, and returns when
// the stream is over. It owns conn, which is sent to on line, at its pace and compressed as it is set. Payloads that the primary leaves
// out are taken from feed. An error is why the stream ended; the primary is told.
func Relay(ctx context.Context, s *Session, conn net.Conn, line *Line, feed *Feed) error {
	conn = hot.Take(conn)
	r := &relay{s: s, feed: feed, conn: conn, in: newInput(conn), gone: make(chan struct{})}
	r.queue.changed = sync.NewCond(&r.queue.mu)
	r.to = &pacedOutput{to: newOutput(conn), line: line, gone: r.gone}
	defer r.in.close()
	defer r.hangUp()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, r.hangUp)
	defer stop()
	accepted, err := r.greet()
	if err != nil || !accepted {
		return r.reason(err)
	}
	ends := make(chan error, 3)
	go func() { ends <- r.read(ctx) }()
	go func() { ends <- r.send() }()
	go func() { ends <- r.replies() }()
	err = <-ends
	cancel()
	r.hangUp()
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // the last word to the primary is still to come
	_ = s.conn.SetWriteDeadline(time.Now().Add(lingerTime))
	<-ends
	<-ends
	r.queue.drop()
	if bye, ok := errors.AsType[*goodbyeError](err); ok {
		return errors.New(bye.text) // the standby's own
	}
	return r.reason(err)
}

// hangUp closes the connection to the standby.
func (r *relay) hangUp() {
	r.over.Do(func() {
		close(r.gone)
		r.queue.close()
		_ = r.conn.SetDeadline(time.Unix(1, 0)) // closing TLS waits for a Write that waits
		_ = r.conn.Close()
	})
}

func (r *relay) reason(err error) error {
	if err == nil {
		return nil
	}
	h := &r.s.hello
	return fmt.Errorf("stream of node %q to node %q for volume %q by way of this one: %w", h.Primary, h.Target, h.VolumeName, err)
}

// greet carries the greeting on, and its answer back. Nobody is offered a version that this node does not know.
func (r *relay) greet() (accepted bool, err error) {
	hello := r.s.hello
	hello.VersionMax = min(hello.VersionMax, wire.Version)
	msg, err := wire.AppendHello(make([]byte, prefixSize), hello)
	if err != nil {
		return false, err
	}
	putPrefix(msg, len(msg)-prefixSize, 0)
	_ = r.conn.SetDeadline(time.Now().Add(helloTime)) // nobody looks meanwhile whether the primary is still there
	_, sent := r.conn.Write(msg)
	head, _, err := r.in.message(greetingLimits)
	if err != nil {
		return false, errors.Join(ended(err), sent)
	}
	reply, err := wire.DecodeHelloReply([][]byte{head})
	if err != nil {
		return false, err
	}
	_ = r.conn.SetDeadline(time.Time{})
	reply.VersionMax = min(reply.VersionMax, wire.Version)
	if reply.Code == wire.Accepted && min(hello.VersionMax, reply.VersionMax) >= wire.VersionPacked {
		r.to.packer = &packer{line: r.to.line}
	}
	return reply.Code == wire.Accepted, r.s.Reply(reply)
}

// read takes what the primary sends, ahead of what is sent on.
func (r *relay) read(ctx context.Context) error {
	var records wire.Batch
	for {
		head, n, err := r.s.in.message(framesLimits)
		if err != nil {
			return ended(err)
		}
		m := newCarried(head)
		if err := r.complete(ctx, m, n, &records); err != nil {
			m.free()
			return err
		}
		if !r.queue.put(m) {
			m.free()
			return ErrClosed
		}
	}
}

// complete gives m its payload: the n bytes that follow, or what the primary left out.
func (r *relay) complete(ctx context.Context, m *carried, n int, records *wire.Batch) error {
	switch {
	case n > 0:
		m.payload = blockdev.NewBuf(n)
		m.pieces = append(m.pieces, m.payload.Bytes())
		if m.size = n; n >= largePayload {
			return r.s.in.into(m.payload.Bytes())
		}
		r.s.in.ahead = chunkSize
		p, err := r.s.in.take(n)
		copy(m.payload.Bytes(), p)
		return within(err)
	case !wire.Unlend(m.head[prefixSize:]):
		return nil
	}
	if err := records.DecodeRecords(m.head[prefixSize:], r.s.hello.Size); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	for i := range records.Frames {
		f := &records.Frames[i]
		if f.PayloadLen() == 0 {
			continue
		}
		k, err := r.feed.take(ctx, f.ID, f.Range.Len)
		if err != nil {
			return err
		}
		m.lent = append(m.lent, k)
		m.pieces = append(m.pieces, k.pieces...)
		m.size += k.n
	}
	return nil
}

// send sends on what was read.
func (r *relay) send() error {
	var all []*carried
	var err error
	for err == nil {
		if all = r.queue.take(all); len(all) == 0 {
			return ErrClosed
		}
		for i, m := range all {
			if err == nil {
				err = r.sendOne(m)
			}
			r.queue.sent(m)
			all[i] = nil
		}
	}
	return ended(err)
}

func (r *relay) sendOne(m *carried) error {
	n, pieces := m.size, append(m.out[:0], m.head)
	r.to.plain = len(m.head) + n
	var packed []byte
	if k := r.to.packer; k != nil && n > 0 && !wire.IsPacked(m.head[prefixSize:]) {
		defer k.release()
		packed = k.take(m.pieces, n)
	}
	if packed != nil {
		wire.Pack(m.head[prefixSize:])
		pieces, n = append(pieces, packed), len(packed)
	} else {
		pieces = append(pieces, m.pieces...)
	}
	m.out = pieces
	putPrefix(m.head, len(m.head)-prefixSize, n)
	_ = r.conn.SetWriteDeadline(time.Now().Add(stuckTime + time.Duration(n/slowestLine)*time.Second))
	r.to.begin(pieces)
	return r.to.finish()
}

// replies carries back what the standby answers.
func (r *relay) replies() error {
	var msg []byte
	for {
		head, _, err := r.in.message(repliesLimits)
		if err != nil {
			return err
		}
		msg = append(append(msg[:0], make([]byte, prefixSize)...), head...)
		putPrefix(msg, len(head), 0)
		_ = r.s.conn.SetWriteDeadline(time.Now().Add(stuckTime))
		if _, err := r.s.conn.Write(msg); err != nil {
			return ended(err)
		}
		if cap(msg) > keepHead {
			msg = nil
		}
	}
}

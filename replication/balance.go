package replication

import (
	"fmt"

	"hacluster/blockdev"
	"hacluster/replication/primary"
	"hacluster/replication/wire"
)

// Reads of clients that members answer (primary/balance.go decides, and says why that is right).

// Every read that a primary asks for is one that a member takes.
var (
	_ [wire.MaxRead - primary.MaxAskedLen]struct{}
	_ [wire.MaxAsked - primary.MaxAsked]struct{}
)

// SetBalance has members answer reads of clients, or not any more, in the tenure that runs and in later ones.
func (r *Replica) SetBalance(on bool) {
	r.mu.Lock()
	r.balance = on
	t := r.tenure
	r.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		t.core.SetBalance(on)
		t.mu.Unlock()
	}
}

// answered takes what a member read for a client of ours. The content is valid until the next message is received; it goes to where
// the client reads it without the lock, for nobody else has the operation then.
func (p *peerLink) answered(stream uint64, reply *wire.Reply) {
	t := p.t
	now := t.r.node.Now()
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	taken := t.core.TakeRead(now, p.node, stream, reply.ID&^wire.Asked)
	t.mu.Unlock()
	if taken == nil {
		return // too late: it was read here
	}
	o := taken.Owner.(*op)
	at := o.Range // o may be another's when it is complete
	err := o.readReply(reply)
	if err != nil {
		p.note(err.Error(), "a member could not read for a client: it was read here")
	}
	now = t.r.node.Now()
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	if t.core.ReadThere(now, taken, err) {
		t.r.meter.readAt(p.node, at)
	}
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, loop)
}

func (o *op) readReply(reply *wire.Reply) error {
	switch {
	case reply.Range != o.Range:
		return fmt.Errorf("asked to read %v it answered for %v", o.Range, reply.Range)
	case reply.Code != wire.OK:
		return fmt.Errorf("%v: %s", reply.Code, reply.Text)
	}
	copy(o.req.Buf.Bytes(), reply.Data)
	return nil
}

// asked answers a read of the primary's client beside the stream, which waits for nothing here. What it read counts until the answer is on
// its way, before the primary knows and asks for more; a primary that takes no answers is refused what goes beyond that (R28).
func (s *session) asked(id uint64, at blockdev.Range) {
	r := s.r
	if r.asks.Add(1) > wire.MaxAsked {
		r.asked()
		s.answer(wire.Reply{Kind: wire.ReadReply, ID: id, Range: at, Code: wire.ReadFailed, Text: fmt.Sprintf("more than %d reads at a time", wire.MaxAsked)})
		return
	}
	r.mu.Lock()
	r.digesting++
	r.mu.Unlock()
	r.work.do(jobFunc(func() {
		reply := s.answerRead(id, at)
		reply.Done = r.asked
		s.answer(reply)
		r.lookedAt()
	}))
}

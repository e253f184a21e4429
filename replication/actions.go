package replication

import (
	"slices"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/replication/link"
	"hacluster/replication/primary"
)

// actions is what the Core asked for in one call: taken under the lock, carried out without it.
type actions struct {
	list []primary.Action
	send []*link.Outbox // got something to send
	more bool           // it may wait for company
}

var actionLists = sync.Pool{New: func() any { return new(actions) }}

// caller says who carries actions out, and so what it may wait for.
type caller uint8

const (
	loop   caller = iota // keeps a stream or the time: never waits for a disk
	client               // submits its own operation: may write to a backing that takes it without waiting
	worker               // is there to wait for the disk
)

// gatherBytes is how much waits at most for company: from there on a message costs less than what the standby could
// have done meanwhile.
const gatherBytes = 32 << 10

// push sends on to the peers what waits for company.
func (t *Tenure) push() {
	t.mu.Lock()
	acts := actionLists.Get().(*actions)
	for _, p := range t.links() {
		if p.outbox != nil {
			acts.send = append(acts.send, p.outbox)
		}
	}
	t.mu.Unlock()
	t.run(acts, client)
}

// takeLocked takes what the Core asks for. What goes to the peers is queued here, so that its order is the Core's, and
// so is all that must not be overtaken by a later call. nil: nothing to carry out.
func (t *Tenure) takeLocked() *actions {
	if t.resting && !t.core.Rests() {
		t.restLocked(false)
		t.look()
	}
	acts := actionLists.Get().(*actions)
	acts.list = t.core.Take(acts.list[:0])
	if len(acts.list) == 0 {
		actionLists.Put(acts)
		return nil
	}
	for i := range acts.list {
		t.noteLocked(acts, &acts.list[i])
	}
	return acts
}

func (t *Tenure) noteLocked(acts *actions, a *primary.Action) {
	switch a.Kind {
	case primary.Begin, primary.Send, primary.Ping, primary.AskMap, primary.Fetch, primary.Look, primary.Ask:
		if o := t.peer(a.Node).queueLocked(a); o != nil && !slices.Contains(acts.send, o) {
			acts.send = append(acts.send, o)
		}
	case primary.Disconnect:
		t.peer(a.Node).way.blame(t.r.node.Now())
		t.peer(a.Node).closeLocked() // now: later it might be another stream
	case primary.Join:
		t.joinLocked(a.Node)
	case primary.Part:
		t.peer(a.Node).partLocked()
	case primary.StartLocal:
		t.local++
		if t.regs != nil && !a.Op.IsCopy() && !a.Op.IsLook() {
			t.regs.Touch(a.Op.Range)
		}
	case primary.Complete:
		a.Op.Owner.(*op).refs.Add(1)
	case primary.Reread:
		t.local++
	case primary.DiskFailed:
		t.gate.hold() // no answer before it is noted (R23)
		t.local++     // nor any stream, should the tenure end before: the note counts as an operation on the backing
	case primary.Spool:
		t.spool.write(a.Op.Owner.(*op))
	case primary.Unload:
		o := a.Op.Owner.(*op)
		o.buf.Free()
		o.buf = nil
	case primary.Load:
		t.spool.read(a.Op.Owner.(*op))
	case primary.Drained:
		t.drainedLocked()
	}
}

// run carries actions out, without the lock. What goes to the peers goes first: they work while the local backing does.
func (t *Tenure) run(acts *actions, by caller) {
	if acts == nil {
		return
	}
	for _, o := range acts.send {
		if !acts.more || o.Queued() >= gatherBytes {
			failpoint.Hit(failpoint.PrimarySend)
			o.Flush()
			failpoint.Hit(failpoint.PrimarySent)
		}
	}
	acts.more = false
	clear(acts.send)
	acts.send = acts.send[:0]
	for i := range acts.list {
		t.carryOut(&acts.list[i], by)
	}
	clear(acts.list)
	actionLists.Put(acts)
}

func (t *Tenure) carryOut(a *primary.Action, by caller) {
	switch a.Kind {
	case primary.StartLocal:
		t.startLocal(a.Op.Owner.(*op), by)
	case primary.Complete:
		o := a.Op.Owner.(*op)
		t.complete(o)
		o.release()
	case primary.Release:
		if o, ok := a.Op.Owner.(*op); ok {
			o.release()
		}
	case primary.Propose:
		if d := a.Command.Drop; d != nil {
			t.r.cfg.Crowd.suspect(t, d.Node)
		}
		select {
		case t.proposals <- *a.Command:
		default:
		}
	case primary.Disconnect:
		t.r.cfg.Crowd.suspect(t, a.Node)
		t.peer(a.Node).note(a.Reason, "stream to the standby closed")
	case primary.DiskFailed:
		t.noteDisk(a.Err, by)
	case primary.HandOn:
		t.look()
	case primary.Barrier:
		t.admitBarrier()
	case primary.Reread:
		t.r.work.do(a.Op.Owner.(*op))
	case primary.Compare:
		t.peer(a.Node).compare()
	}
}

// complete reports an operation's end to whoever submitted it.
func (t *Tenure) complete(o *op) {
	req := o.req
	if req == nil {
		if o.done != nil {
			o.done <- o.Err
		}
		return
	}
	t.r.meter.done(o)
	if o.Kind == blockdev.OpRead && mendable(o.Err) {
		t.unread(o.Range, o.Err)
	}
	if o.Kind != blockdev.OpRead && o.Err == nil && !t.acked.Load() && !t.acked.Swap(true) {
		t.r.node.FirstAck(t.r.cfg.Volume.Name, t.epoch)
	}
	failpoint.Hit(failpoint.PrimaryAnswer)
	req.Err = o.Err
	req.Done(req)
	failpoint.Hit(failpoint.PrimaryAnswered)
}

package replication

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/link"
	"hacluster/replication/primary"
	"hacluster/replication/verify"
	"hacluster/replication/wire"
)

// ErrVerifying: a comparison runs already.
var ErrVerifying = errors.New("a verify of this volume runs already: wait for it, or stop it")

// ErrNothingToVerify: no member is connected to compare with.
var ErrNothingToVerify = errors.New("no other replica is a connected member of the in-sync set: there is nothing to compare with")

// verifyID marks the ids of our digest requests: those of a resync count from 1.
const verifyID = 1 << 63

// VerifyRequest is what is asked for.
type VerifyRequest struct {
	Repair bool   // consent: what differs is overwritten with the primary's content
	By     string // who asked, for people
}

// look is who looks at a range in the order of writes.
type look struct {
	id   uint64
	mine chan<- seen // has room
}

// seen is what our own disk gave for the look with that id.
type seen struct {
	id uint64
	d  digests
}

// answer is a member's to a digest request.
type answer struct {
	node   string
	stream uint64
	reply  wire.Reply
}

// verifier runs a verify.Run: one goroutine, which owns the Run and what is under way.
type verifier struct {
	t       *Tenure
	run     *verify.Run
	mine    chan seen     // sent by workers, received by work; has room for all that is under way
	answers chan answer   // sent by who receives streams, received by work; what nobody asked for is dropped
	kick    chan struct{} // to work: streams or members have changed; room for one
	stop    chan struct{} // closed by Stop
	stopped atomic.Bool
	after   uint64 // what has a number up to it was asked by an earlier one

	// work's own:
	looks   map[uint64]*looking
	rest    time.Time // nothing new before it
	ops     uint64    // of clients, when that was last looked at
	totals  [3]int64  // what of the result is counted already
	events  int
	blocked bool // a target cannot be asked at the moment
}

// looking is one piece under way.
type looking struct {
	piece  verify.Piece
	began  time.Time
	mine   *digests
	asked  map[string]uint64 // by node: the stream
	theirs map[string]verify.Seen
}

// maxVerifyEvents is how many ranges of one verify are told as events; the rest is in the last one, as a number.
const maxVerifyEvents = 64

// Verify begins to compare the volume with every connected member. It goes on until it is done, stopped, or the tenure
// ends; VerifyStatus tells how far it is.
func (t *Tenure) Verify(req VerifyRequest) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended || t.life == nil:
		return blockdev.ErrNotPrimary
	case t.verifier != nil:
		return ErrVerifying
	}
	var targets []string
	left := map[string]string{}
	for _, n := range t.core.Peers() {
		if g := t.core.Peer(n); g.Member && g.Connected {
			targets = append(targets, n)
		} else if g.Member {
			left[n] = "it is not connected"
		} else {
			left[n] = "it is no member of the in-sync set: its resync compares it"
		}
	}
	if len(targets) == 0 {
		return ErrNothingToVerify
	}
	most := 8 * (len(targets) + 1)
	v := &verifier{t: t, mine: make(chan seen, most), answers: make(chan answer, most), kick: make(chan struct{}, 1), stop: make(chan struct{}),
		looks: map[uint64]*looking{}, after: t.lastLook}
	v.run = verify.New(verify.Config{Self: t.r.cfg.Node, Size: t.r.cfg.Volume.Size, Targets: targets, Left: left, Repair: req.Repair, DigestSize: wire.DigestSize})
	t.verifier = v
	t.r.verifyBegins(req)
	ctx := t.life
	t.goes.Go(func() { v.work(ctx, req) })
	return nil
}

// StopVerify ends the comparison that runs; false: none does.
func (t *Tenure) StopVerify() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verifier == nil {
		return false
	}
	if !t.verifier.stopped.Swap(true) {
		close(t.verifier.stop)
	}
	return true
}

// verifyChanged has the verifier look at streams and members again.
func (t *Tenure) verifyChanged() {
	t.mu.Lock()
	v := t.verifier
	t.mu.Unlock()
	if v == nil {
		return
	}
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

// verifyAnswer hands an answer to the verifier, if it is one's.
func (t *Tenure) verifyAnswer(node string, stream uint64, r wire.Reply) (ours bool) {
	if r.ID&verifyID == 0 {
		return false
	}
	t.mu.Lock()
	v := t.verifier
	if p := t.peer(node); p.stream == stream {
		p.looks = max(0, p.looks-1)
	}
	t.mu.Unlock()
	if v != nil && r.ID&^verifyID > v.after { // else an earlier one asked, and was stopped
		select {
		case v.answers <- answer{node, stream, r}:
		default:
		}
	}
	return true
}

func (v *verifier) work(ctx context.Context, req VerifyRequest) {
	state := v.loop(ctx)
	v.report(state)
	v.t.mu.Lock()
	v.t.verifier = nil
	v.t.mu.Unlock()
	v.t.r.verifyEnds(state, req, v.run.Result())
}

// loop works until the Run is done, and says how it ended.
func (v *verifier) loop(ctx context.Context) VerifyState {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		v.fill()
		if v.run.Done() {
			if len(v.run.Targets()) == 0 {
				return VerifyInterrupted
			}
			return VerifyDone
		}
		v.report(VerifyRunning)
		timer.Reset(v.until())
		select {
		case <-ctx.Done():
			return VerifyInterrupted
		case <-v.t.gone:
			return VerifyInterrupted
		case <-v.stop:
			return VerifyStopped
		case s := <-v.mine:
			if l := v.looks[s.id]; l != nil {
				l.mine = &s.d
				v.finished(s.id, l)
			}
		case a := <-v.answers:
			v.hear(a)
		case <-v.kick:
			v.lookAtStreams()
		case <-timer.C:
			v.lookAtStreams()
		}
	}
}

// until is when to look again although nothing came: when the pause is over, or after a while, for what waits.
func (v *verifier) until() time.Duration {
	if wait := time.Until(v.rest); wait > 0 {
		return wait
	}
	return verifyPatience
}

// verifyPatience is how long at most it takes to see that a member can be asked again.
const verifyPatience = 200 * time.Millisecond

// fill puts under way what may be.
func (v *verifier) fill() {
	v.blocked = false
	for !v.blocked && time.Until(v.rest) <= 0 {
		ops := v.clientOps()
		v.run.SetBusy(ops != v.ops)
		p, ok := v.run.Next()
		if !ok {
			return
		}
		v.ops = ops
		v.begin(p)
	}
}

// clientOps counts what clients have submitted.
func (v *verifier) clientOps() (n uint64) {
	c := v.t.r.meter.counts()
	for _, k := range c.ops {
		n += k
	}
	return n
}

// begin asks for a piece here and at every target, all at one moment: where it is ordered, that is its place.
func (v *verifier) begin(p verify.Piece) {
	t := v.t
	t.mu.Lock()
	if t.ended || !v.mayBeginLocked() {
		t.mu.Unlock()
		v.blocked = true
		v.run.Put(p)
		return
	}
	t.lastLook++
	id := verifyID | t.lastLook
	l := &looking{piece: p, began: time.Now(), asked: map[string]uint64{}, theirs: map[string]verify.Seen{}}
	v.looks[id] = l
	for _, n := range v.run.Targets() {
		l.asked[n] = t.peer(n).stream
		t.peer(n).looks++
	}
	var acts *actions
	if p.Ordered {
		o := t.newOp(blockdev.OpRead, p.Range)
		o.look = &look{id, v.mine}
		t.core.Look(&o.Op, v.run.Targets())
		acts = t.takeLocked()
	} else {
		acts = actionLists.Get().(*actions)
		acts.list = acts.list[:0]
		for _, n := range v.run.Targets() {
			p := t.peer(n)
			if p.outbox.Put(wire.Frame{Kind: wire.Digest, Flags: wire.FromDisk, ID: id, Range: l.piece.Range}) != nil {
				p.closeLocked()
				continue
			}
			acts.send = append(acts.send, p.outbox)
		}
	}
	t.mu.Unlock()
	t.run(acts, loop)
	if !p.Ordered {
		dev, mine := t.r.dev, v.mine
		t.r.work.do(jobFunc(func() { mine <- seen{id, digestOf(dev, p.Range, nil, link.DigestDisk)} }))
	}
}

// mayBeginLocked reports whether every target can be asked now, after who is a target no more was let go.
func (v *verifier) mayBeginLocked() bool {
	for _, n := range append([]string(nil), v.run.Targets()...) {
		if !v.t.core.Peer(n).Member {
			v.run.Leave(n, "it left the in-sync set meanwhile")
		}
	}
	for _, n := range v.run.Targets() {
		p := v.t.peer(n)
		if p.outbox == nil || p.looks >= maxLooks || !v.t.core.MayLook(n, p.stream) {
			return false
		}
	}
	return len(v.run.Targets()) > 0
}

// hear takes a member's answer.
func (v *verifier) hear(a answer) {
	l := v.looks[a.reply.ID]
	if l == nil || l.asked[a.node] != a.stream {
		return // asked on a stream that is gone
	}
	if a.reply.Range != l.piece.Range || a.reply.Code == wire.OK && len(a.reply.Digests) != wire.Digests(l.piece.Range)*wire.DigestSize {
		v.t.peer(a.node).disconnect("it answered a digest request with another range")
		return
	}
	l.theirs[a.node] = verify.Seen{Digests: a.reply.Digests, Unreadable: a.reply.Code != wire.OK}
	v.finished(a.reply.ID, l)
}

// lookAtStreams takes what was asked on a stream that is gone for unanswered, and lets go who is no member.
func (v *verifier) lookAtStreams() {
	t := v.t
	t.mu.Lock()
	v.mayBeginLocked()
	var done []uint64
	for id, l := range v.looks {
		for n, stream := range l.asked {
			p := t.peer(n)
			if _, answered := l.theirs[n]; !answered && (p.outbox == nil || p.stream != stream) {
				l.theirs[n] = verify.Seen{Unknown: true}
				done = append(done, id)
			}
		}
	}
	t.mu.Unlock()
	for _, id := range done {
		if l := v.looks[id]; l != nil {
			v.finished(id, l)
		}
	}
}

// finished tells the Run of a piece that all sides have answered, and has copied what it wants repaired.
func (v *verifier) finished(id uint64, l *looking) {
	if l.mine == nil || len(l.theirs) < len(l.asked) {
		return
	}
	delete(v.looks, id)
	if l.mine.err != nil { // the device is closed: the tenure ends
		v.run.Put(l.piece)
		v.rest = time.Now().Add(verifyPatience)
		return
	}
	t := v.t
	if l.piece.Ordered {
		t.mu.Lock()
		for n, s := range l.theirs {
			s.Skip = t.core.Behind(n, l.piece.Range)
			l.theirs[n] = s
		}
		t.mu.Unlock()
	}
	v.run.SetBusy(v.clientOps() != v.ops)
	if pause := v.run.Pause(time.Since(l.began)); pause > 0 {
		v.rest = time.Now().Add(pause)
	}
	repairs := v.run.Looked(l.piece, verify.Mine{Digests: l.mine.sums, Bad: l.mine.bad}, l.theirs)
	for _, rep := range repairs {
		v.repair(rep)
	}
	v.tell()
}

// repair copies the primary's content of a range, in the order of all writes: the look that follows sees it.
func (v *verifier) repair(rep verify.Repair) {
	v.t.with(func(now primary.Instant) {
		if v.t.core.Peer(rep.Node).Member {
			v.t.core.Repair(now, rep.Node, &v.t.newOp(blockdev.OpWrite, rep.Range).Op)
		}
	})
}

// tell counts what was found, and makes events of it.
func (v *verifier) tell() {
	r := v.t.r
	for _, f := range v.run.Found() {
		if v.events++; v.events > maxVerifyEvents {
			continue
		}
		text := fmt.Sprintf("verify: %s cannot read %v of its disk", f.Node, f.Range)
		if f.Kind == verify.Different {
			text = fmt.Sprintf("verify: %s differs from %s at %v; its first block has the digest %x, the primary's %x", f.Node, r.cfg.Node, f.Range, f.Theirs, f.Mine)
		}
		r.log.Error("verify found a fault", "epoch", v.t.epoch, "what", text)
		r.event("verify found", text)
	}
	s := v.run.Result()
	d, u, m := s.Blocks()
	now := [3]int64{d, u, m}
	for i := range now {
		r.verified[i].Add(uint64(now[i] - v.totals[i]))
	}
	v.totals = now
}

func (v *verifier) report(state VerifyState) { v.t.r.verifyMoved(state, v.run.Result()) }

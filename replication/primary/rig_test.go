package primary

import (
	"errors"
	"slices"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

const (
	second    = Instant(time.Second)
	dropAfter = 500 * time.Millisecond
	chunk     = 1 << 20
	volSize   = 4 << 20
)

var (
	errDisk = errors.New("disk failed")
	bootA   = cluster.Incarnation{Boot: "a", Attachment: "1"}
	bootB   = cluster.Incarnation{Boot: "b", Attachment: "1"}
)

// rig is a Core of node p with replicas on s and x, and everything that it asked for.
type rig struct {
	t   *testing.T
	c   *Core
	now Instant
	vol cluster.Volume
	log []Action
	// silent: nobody answers when a map is asked for. Else everything is marked, for a member what marked names.
	silent bool
	marked []blockdev.Range
}

func newRig(t *testing.T, members ...string) *rig {
	t.Helper()
	vol := cluster.Volume{Name: "v", Size: volSize, Epoch: 3, Version: 7, Primary: "p", Process: 1,
		Replicas: []cluster.Replica{{Node: "p"}, {Node: "s"}, {Node: "x"}}, Members: map[string]cluster.Member{"p": {}}}
	for _, m := range members {
		vol.Members[m] = cluster.Member{Incarnation: bootA, Process: 1}
	}
	g := &rig{t: t, now: 100 * second, vol: vol}
	g.c = New(Config{Self: "p", DropAfter: dropAfter, Piece: chunk}, vol, g.now)
	return g
}

// up connects a node that is the replica which the set names, or names none.
func (g *rig) up(node string) uint64 {
	g.t.Helper()
	return g.greet(node, Greeting{Incarnation: bootA, Process: 1, LastNum: g.c.peers[node].heard})
}

func (g *rig) greet(node string, hello Greeting) uint64 {
	n := g.c.NextStream(node)
	g.c.Up(g.now, node, n, hello)
	g.take()
	return n
}

// take moves what the Core asks for to the log and returns it.
func (g *rig) take() []Action {
	n := len(g.log)
	g.log = g.c.Take(g.log)
	for i := n; i < len(g.log); i++ {
		if a := g.log[i]; a.Kind == AskMap && !g.silent {
			marked := g.marked
			if !g.c.peers[a.Node].member {
				marked = []blockdev.Range{{Len: volSize}}
			}
			g.c.Mapped(g.now, a.Node, g.c.peers[a.Node].stream, marked)
			g.log = g.c.Take(g.log)
		}
	}
	return g.log[n:]
}

func (g *rig) op(kind blockdev.Op, off, n int64) *Op {
	op := &Op{Kind: kind}
	op.Range = blockdev.Range{Off: off, Len: n}
	op.Owner = op
	return op
}

func (g *rig) admit(op *Op) *Op {
	g.c.Admit(g.now, op)
	g.take()
	return op
}

func (g *rig) write(off int64) *Op { return g.admit(g.op(blockdev.OpWrite, off, 4096)) }
func (g *rig) flush() *Op          { return g.admit(g.op(blockdev.OpFlush, 0, 0)) }

func (g *rig) local(op *Op, err error) []Action {
	g.c.LocalDone(g.now, op, err)
	return g.take()
}

func (g *rig) ack(node string, stream, num uint64) []Action {
	g.c.Acked(g.now, node, stream, num)
	return g.take()
}

func (g *rig) down(node string, stream uint64) []Action {
	g.c.Down(g.now, node, stream)
	return g.take()
}

// pass lets time go by in steps, ticking.
func (g *rig) pass(d time.Duration) []Action {
	n := len(g.log)
	for end := g.now.Add(d); g.now < end; {
		g.now = min(end, g.now.Add(dropAfter/10))
		g.c.Tick(g.now)
		g.take()
	}
	return g.log[n:]
}

// commit applies a change of the set and tells the Core.
func (g *rig) commit(change func(*cluster.Volume)) []Action {
	g.vol = g.vol.Clone()
	g.vol.Version++
	change(&g.vol)
	g.c.Set(g.now, g.vol)
	return g.take()
}

func (g *rig) drop(node string) []Action {
	return g.commit(func(v *cluster.Volume) { delete(v.Members, node) })
}

func (g *rig) admitMember(node string, inc cluster.Incarnation) []Action {
	return g.commit(func(v *cluster.Volume) { v.Members[node] = cluster.Member{Incarnation: inc, Process: 1} })
}

func (g *rig) count(kind ActionKind, op *Op) (n int) {
	for _, a := range g.log {
		if a.Kind == kind && a.Op == op {
			n++
		}
	}
	return n
}

func (g *rig) completed(op *Op) bool { return g.count(Complete, op) > 0 }

func (g *rig) wantOpen(ops ...*Op) {
	g.t.Helper()
	for _, op := range ops {
		if g.completed(op) {
			g.t.Fatalf("operation %d is complete: too early", op.seq)
		}
	}
}

func (g *rig) wantDone(ops ...*Op) {
	g.t.Helper()
	for _, op := range ops {
		if n := g.count(Complete, op); n != 1 {
			g.t.Fatalf("operation %d was completed %d times, want once", op.seq, n)
		}
	}
}

// sent lists the numbers that went to node since the last Begin.
func (g *rig) sent(node string) (nums []uint64) {
	for _, a := range g.log {
		switch {
		case a.Node == node && a.Kind == Begin:
			nums = nil
		case a.Node == node && a.Kind == Send:
			nums = append(nums, a.Num)
		}
	}
	return nums
}

func has(acts []Action, kind ActionKind, node string) bool {
	return slices.ContainsFunc(acts, func(a Action) bool { return a.Kind == kind && a.Node == node })
}

func drops(acts []Action, node string) bool {
	return slices.ContainsFunc(acts, func(a Action) bool { return a.Kind == Propose && a.Command.Drop != nil && a.Command.Drop.Node == node })
}

func admits(acts []Action, node string) bool {
	return slices.ContainsFunc(acts, func(a Action) bool {
		return a.Kind == Propose && a.Command.Admit != nil && a.Command.Admit.Node == node
	})
}

// resync connects node, a replica that is no member, and finds every chunk equal. It returns the stream, which waits
// for the acknowledgement of the closing entry.
func (g *rig) resync(node string) uint64 {
	g.t.Helper()
	n := g.up(node)
	g.compareAll(node, n)
	if !g.c.peers[node].closing {
		g.t.Fatal("everything was compared and the resync is not being closed")
	}
	return n
}

func (g *rig) compareAll(node string, stream uint64) {
	for {
		at, ok := g.c.TakeChunk(g.now, node, stream, 0)
		if !ok {
			return
		}
		g.c.Compared(g.now, node, stream, at, nil)
		g.take()
	}
}

// last is the number of the newest entry made for node.
func (g *rig) last(node string) uint64 { return g.c.peers[node].next - 1 }

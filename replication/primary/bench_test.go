package primary

import (
	"fmt"
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// path is the steady state of a primary: writes of 4 KiB, depth of them under way, each peer acknowledging.
type path struct {
	c       *Core
	ops     []*Op
	acts    []Action
	peers   []string
	streams []uint64
	num     uint64
	now     Instant
}

func newPath(depth int, peers ...string) *path {
	vol := cluster.Volume{Name: "v", Size: volSize, Epoch: 3, Version: 7, Primary: "p", Replicas: []cluster.Replica{{Node: "p"}},
		Members: map[string]cluster.Member{"p": {}}}
	for _, n := range peers {
		vol.Replicas = append(vol.Replicas, cluster.Replica{Node: n})
		vol.Members[n] = cluster.Member{Incarnation: bootA}
	}
	b := &path{c: New(Config{Self: "p", DropAfter: dropAfter}, vol, second), peers: peers, now: second}
	for _, n := range peers {
		s := b.c.NextStream(n)
		b.c.Up(b.now, n, s, Greeting{Incarnation: bootA})
		b.streams = append(b.streams, s)
	}
	for i := range depth {
		op := &Op{}
		op.Owner, op.Range = op, blockdev.Range{Off: int64(i) * 4096, Len: 4096}
		b.ops = append(b.ops, op)
	}
	for range 4 { // the rings and slices reach their size
		b.round()
	}
	return b
}

// round admits and completes one write per op and reports how many were completed.
func (b *path) round() (completed int) {
	for _, op := range b.ops {
		r := op.Range
		op.Reset()
		op.Kind, op.Range = blockdev.OpWrite, r
		b.c.Admit(b.now, op)
	}
	for _, op := range b.ops {
		b.c.LocalDone(b.now, op, nil)
	}
	b.num += uint64(len(b.ops))
	for i, n := range b.peers {
		b.c.Acked(b.now, n, b.streams[i], b.num)
	}
	b.acts = b.c.Take(b.acts[:0])
	for i := range b.acts {
		if b.acts[i].Kind == Complete {
			completed++
		}
	}
	return completed
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, peers := range [][]string{nil, {"s"}, {"s", "x"}} {
		for _, depth := range []int{1, 32} {
			b := newPath(depth, peers...)
			if n := b.round(); n != depth {
				t.Fatalf("%d of %d writes were completed", n, depth)
			}
			if n := testing.AllocsPerRun(200, func() { b.round() }); n != 0 {
				t.Errorf("%d peers, depth %d: %v allocations per round, want none", len(peers), depth, n)
			}
		}
	}
}

// What deciding costs for one write. Expected well below a microsecond: a write to a disk or a network costs tens, so
// the decisions are not what bounds the rate. It grows with depth by the comparison with all that is under way.
func BenchmarkWrite(b *testing.B) {
	for _, peers := range [][]string{{"s"}, {"s", "x"}} {
		for _, depth := range []int{1, 32, 256} {
			b.Run(fmt.Sprintf("peers=%d/depth=%d", len(peers), depth), func(b *testing.B) {
				w := newPath(depth, peers...)
				b.ReportAllocs()
				b.SetBytes(4096)
				for range b.N/depth + 1 {
					w.round()
				}
			})
		}
	}
}

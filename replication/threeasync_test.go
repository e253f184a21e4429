package replication

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

// R6: each of several standbys tells how long its prefix of the primary's order is, in the same numbers, whatever else it was sent; who
// is resynced has as much as the others when it is admitted.
func TestAsyncStandbysTellHowLongTheirPrefixIs(t *testing.T) {
	for _, inline := range []bool{false, true} {
		l := formed(t, labConfig{mode: cluster.ModeAsync, bound: wide, inline: inline}, "a", "b", "c")
		a, b, c := l.nodes["a"], l.nodes["b"], l.nodes["c"]
		cl := a.serving().client(t)
		a.settled("b")
		a.settled("c")
		place := func(n *labNode) uint64 { return n.get().Report().Place }
		write := func(from, to int64) {
			t.Helper()
			for i := from; i < to; i++ {
				if err := cl.write(i*4096, pattern(4096, byte(1+i))); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(0, 10)
		l.await("both to have ten", func() bool { return place(b) >= 10 && place(b) == place(c) })
		had := place(c)
		held := c.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
		write(10, 15)
		l.await("b to have all", func() bool { return place(b) >= had+5 })
		if p := place(c); p != had {
			t.Errorf("c has place %d, and its disk took nothing since %d", p, had)
		}
		held.Remove()
		l.await("c to have all", func() bool { return place(c) == place(b) })
		c.cable.cut()
		l.mustOn(func(on cluster.On) cluster.Command {
			return cluster.Command{By: "a", Drop: &cluster.Drop{On: on, Node: "c", Reason: "test"}}
		})
		write(20, 25)
		l.await("b to have all", func() bool { return place(b) >= had+10 })
		c.cable.mend()
		l.await("c to be admitted, with a place as long as that of b", func() bool {
			v := l.volume()
			return v.IsMember("c") && place(c) >= had+10 && place(c) == place(b)
		})
		l.same("a", "c")
		l.same("a", "b")
		l.close()
	}
}

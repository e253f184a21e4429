package maps

import (
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

const benchSize = 64 << 30

func randomBlocks() (rs [4096]blockdev.Range) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range rs {
		rs[i] = blockRange(rng.Int64N(benchSize/blockSize), 1)
	}
	return rs
}

// write is all that one write of 4 KiB costs the primary here, with one peer: marked and sent, returned, acknowledged;
// every 256th with a flush that clears what is before it. Coarse marks not counted.
func (r *rig) write(i int, g blockdev.Range, regs *Regions) {
	regs.Touch(g)
	id, num := r.sent(g)
	r.Returned(id, g, true)
	r.Acked(r.p, num)
	if i%256 == 255 {
		r.flushed()
		r.TakeDurable()
	}
}

func TestBookkeepingOfAWriteAllocatesNothing(t *testing.T) {
	r := newRig()
	r.both(blockRange(0, 1)) // its leaves exist
	regs := NewRegions(testSize, blockSize)
	i := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		i++
		r.write(0, blockRange(1+i%8, 1), regs)
	}); n != 0 {
		t.Errorf("%v allocations for each write, want 0", n)
	}
}

// Writes within a few GiB share leaves; those scattered over a sparse volume make and drop one of 4 KiB in each of three
// maps between two flushes: twice as dear, for the cache, and no garbage.
func BenchmarkWriteMarkedAndCleared(b *testing.B) {
	for name, spread := range map[string]int64{"near": 64 << 20, "scattered": benchSize} {
		b.Run(name, func(b *testing.B) { benchmarkWrite(b, spread) })
	}
}

func benchmarkWrite(b *testing.B, spread int64) {
	r := &rig{Primary: NewPrimary(benchSize, "alpha", []string{"beta"})}
	r.Tell = true
	r.p = r.Peers()[0]
	regs := NewRegions(benchSize, 4<<20)
	rs := randomBlocks()
	for i := range rs {
		rs[i].Off %= spread
	}
	for i, g := range rs {
		r.write(i, g, regs)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.write(i, rs[i%len(rs)], regs)
	}
}

// The same on the standby, with two other replicas.
func BenchmarkStandbyTake(b *testing.B) {
	s := NewStandby(benchSize, []string{"alpha", "gamma"})
	rs := randomBlocks()
	num := uint64(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		num++
		s.Take(num, rs[i%len(rs)])
		s.Stable(num - 1)
		if i%256 == 255 {
			s.Durable(s.flush, s.names)
			s.Flush(num)
		}
	}
}

// Choosing what may go of 16384 hot regions: once in a while, in the time of a small disk write.
func BenchmarkRegionsBegin(b *testing.B) {
	s := NewRegions(benchSize, 4<<20)
	p := newPeer("beta", benchSize)
	for _, g := range randomBlocks() {
		p.Missed(g)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Begin(1, func(int64) bool { return true }, []*bitmap.Bitmap{p.behind}, true)
	}
}

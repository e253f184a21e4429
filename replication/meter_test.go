package replication

import (
	"errors"
	"testing"
	"time"

	"hacluster/blockdev"
)

func TestHistogramBucketsDoubleAndKeepTheirBounds(t *testing.T) {
	bounds := BoundsSeconds()
	for i, b := range bounds {
		var h Histogram
		d := time.Duration(b * 1e9)
		h.Observe(d)
		h.Observe(d + 1)
		l := h.Read()
		if l.Cumulative[i] != 1 || l.Count != 2 || i > 0 && l.Cumulative[i-1] != 0 {
			t.Errorf("%v and a nanosecond more: %v of %d, bucket %d", d, l.Cumulative, l.Count, i)
		}
		if i+1 < len(bounds) && l.Cumulative[i+1] != 2 {
			t.Errorf("%v and a nanosecond more: not both in the next bucket: %v", d, l.Cumulative)
		}
	}
	var h Histogram
	h.Observe(-time.Second)
	h.Observe(time.Hour)
	if l := h.Read(); l.Cumulative[0] != 1 || l.Cumulative[len(bounds)-1] != 1 || l.Count != 2 || l.SumSeconds != 3600 {
		t.Errorf("the extremes: %+v", l)
	}
}

func TestEveryFlushAndOneInEightWritesIsTimedTheFirstIncluded(t *testing.T) {
	var m meter
	timed := map[blockdev.Op]int{}
	for _, op := range []blockdev.Op{blockdev.OpWrite, blockdev.OpRead, blockdev.OpFlush} {
		for i := range 16 {
			at, _ := m.begin(&blockdev.Request{Op: op, Range: blockdev.Range{Len: 4096}})
			if i == 0 && at == 0 {
				t.Errorf("the first %v is not timed", op)
			}
			if at != 0 {
				timed[op]++
			}
		}
	}
	if timed[blockdev.OpWrite] != 2 || timed[blockdev.OpRead] != 2 || timed[blockdev.OpFlush] != 16 {
		t.Errorf("timed %v of 16 each", timed)
	}
	m.paced.Add(1)
	all, counted := 0, 0
	for range 16 {
		at, also := m.begin(&blockdev.Request{Op: blockdev.OpRead})
		if at != 0 {
			all++
		}
		if also {
			counted++
		}
	}
	if all != 16 || counted != 2 {
		t.Errorf("beside a resync %d of 16 were timed and %d counted, want all and 2", all, counted)
	}
	if c := m.counts(); c.ops[blockdev.OpWrite] != 16 || c.bytes[blockdev.OpWrite] != 16*4096 {
		t.Errorf("counted %+v", c)
	}
}

func TestFiguresTellWhatClientsDidAndHowLongItTook(t *testing.T) {
	l := formed(t, labConfig{inline: true, size: 1 << 20}, "a", "b")
	ten := l.nodes["a"].serving()
	l.nodes["a"].connected("b")
	c := ten.client(t)
	var err error
	for i := range 3 {
		err = errors.Join(err, c.write(int64(i*8192), pattern(8192, byte(i+1))))
	}
	err = errors.Join(err, c.flush(), c.do(&blockdev.Request{Op: blockdev.OpZero, Range: blockdev.Range{Off: 0, Len: 4096}}))
	if err != nil {
		t.Fatal(err)
	}
	r := l.nodes["a"].get()
	f := r.Figures()
	if f.Ops != [...]uint64{blockdev.OpWrite: 3, blockdev.OpZero: 1, blockdev.OpFlush: 1} || f.Bytes[blockdev.OpWrite] != 3*8192 || f.Errors != 0 {
		t.Errorf("counted %+v", f)
	}
	for s, want := range map[Stage]uint64{StageWrite: 2, StageLocalWrite: 2, StageFlush: 1, StageLocalFlush: 1, StageRead: 0} {
		if got := f.Stages[s]; got.Count != want || want > 0 && got.SumSeconds <= 0 {
			t.Errorf("stage %d: %d timed in %v s, want %d", s, got.Count, got.SumSeconds, want)
		}
	}
	if a := f.Acks["b"]; a.Count == 0 || a.SumSeconds <= 0 {
		t.Errorf("no acknowledgement of b was timed: %+v", f.Acks)
	}
	if s, _ := r.Serving(); s.WriteOps != 4 || s.WriteBytes != 3*8192+4096 {
		t.Errorf("the tenure served %+v", s)
	}
}

// Expected: a tenth of a microsecond for an operation that is timed (two readings of the clock and a few atomic
// additions), a fifth of that on average, and no allocation.
func BenchmarkMeter(b *testing.B) {
	r := &Replica{}
	r.meter.init("a", nil)
	req := &blockdev.Request{Op: blockdev.OpWrite, Range: blockdev.Range{Len: 4096}}
	o := &op{}
	o.Kind = blockdev.OpWrite
	b.ReportAllocs()
	for b.Loop() {
		o.began, o.counted = r.meter.begin(req)
		r.meter.localDone(o, o.localBegins())
		r.meter.done(o)
	}
}

func TestMeteringTakesNoMemory(t *testing.T) {
	var m meter
	req, o := &blockdev.Request{Op: blockdev.OpFlush}, &op{}
	o.Kind = blockdev.OpFlush
	if n := testing.AllocsPerRun(100, func() {
		o.began, o.counted = m.begin(req)
		m.localDone(o, o.localBegins())
		m.done(o)
	}); n != 0 {
		t.Errorf("%v allocations for an operation that is timed", n)
	}
}

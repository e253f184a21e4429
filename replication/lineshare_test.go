package replication

import (
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/link"
	"hacluster/replication/primary"
	"hacluster/replication/shape"
)

// A resync takes what the reserve leaves of the line, although nobody else uses it, and counts what it copies, not what it compares.
func TestResyncLeavesTheReserveOfItsLine(t *testing.T) {
	const rate, reserve = 5_000_000, 60
	r := leave(t, 1)
	r.b.cable.cut()
	r.dropped()
	r.write(1500, 20<<20, 24<<20)
	differs := r.differing("a", "b")
	r.lab.line.Set(shape.Settings{Rate: rate, Reserve: reserve}, 0)
	sent := r.lab.line.Figures().Sent
	began := time.Now()
	r.b.cable.mend()
	r.await("the standby to be admitted", func() bool { return r.volume().IsMember("b") })
	took := time.Since(began)
	r.same("a", "b")
	if least := time.Duration(float64(differs)/(rate*(100-reserve)/100)*float64(time.Second)) * 8 / 10; took < least {
		t.Errorf("%d bytes were copied in %v, at %d bytes a second and a reserve of %d %% that takes %v", differs, took, rate, reserve, least)
	}
	if n := int64(r.lab.line.Figures().Sent - sent); n < differs || n > differs*12/10 {
		t.Errorf("%d bytes were sent, %d differed", n, differs)
	}
}

func TestShareOfTheLineIsWhatIsCopied(t *testing.T) {
	line := link.NewLine()
	line.Set(shape.Settings{Rate: 1 << 20}, 0)
	s := newLineShare(fixedLine{line})
	copies := func(n int64) []*primary.Op {
		o := new(primary.Op)
		o.Range = blockdev.Range{Len: n / 2}
		return []*primary.Op{o, o}
	}
	if n := s.charge(1 << 20); n != 1<<20 {
		t.Fatalf("the first chunk is charged %d bytes", n)
	}
	for range 50 { // nothing differs
		s.settle(1<<20, s.charge(1<<20), nil)
	}
	if n := s.charge(1 << 20); n != 1<<20/64 {
		t.Fatalf("where nothing differs a chunk is charged %d bytes", n)
	}
	for range 50 {
		s.settle(1<<20, s.charge(1<<20), copies(1<<20))
	}
	if n := s.charge(1 << 20); n < 1<<20-1000 {
		t.Fatalf("where all differs a chunk is charged %d bytes", n)
	}
	none := newLineShare(fixedLine{nil})
	if rest, most := none.rest(); rest != 0 || most < 1<<20 {
		t.Fatalf("without a line: %v %d", rest, most)
	}
	none.settle(1<<20, none.charge(1<<20), copies(4096))
}

// R21: what is compressed and changed on its way counts as a block whose checksum does not match: it is not written, it is
// counted and sent again, and the standby stays.
func TestCompressedPayloadThatWasChangedIsRefusedAndReplayed(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	l.line.Set(shape.Settings{Compress: shape.On}, 0)
	c := a.serving().client(t)
	a.connected("b")
	b.cable.corrupt(1)
	if err := c.write(8192, marked(4096, 7)); err != nil {
		t.Fatal(err)
	}
	if f := l.line.Figures(); b.cable.left() != 0 || f.Sent >= f.Plain {
		t.Fatalf("nothing was changed on its way (%d left), or nothing compressed: %+v", b.cable.left(), f)
	}
	if n := b.get().Figures().ChecksumErrors; n != 1 {
		t.Errorf("%d blocks are counted, want 1", n)
	}
	l.same("a", "b")
	if l.drops() != 0 {
		t.Error("dropped for a single mismatch")
	}
}

// fixedLine is the line of a stream that goes directly.
type fixedLine struct{ line *link.Line }

func (f fixedLine) Slow() *link.Line { return f.line }

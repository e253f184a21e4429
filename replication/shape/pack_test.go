package shape

import (
	"testing"
	"time"
)

// world is a line and data of a kind.
type world struct {
	line   float64 // ns a byte
	ratio  float64
	effort float64 // ns a byte
	rate   int64
}

// run sends messages of 64 KiB, total bytes of them, and returns what part of them was compressed.
func (w world) run(p *Pack, total int) float64 {
	const n = 64 << 10
	packed := 0
	for at := 0; at < total; at += n {
		size := n
		if p.Next(n) {
			packed += n
			size = int(n * min(w.ratio, 1))
			p.Packed(n, int(n*w.ratio), time.Duration(n*w.effort))
		}
		p.Sent(size, time.Duration(float64(size)*w.line), w.rate)
	}
	return float64(packed) / float64(total)
}

func TestCompressionIsUsedWhereItPays(t *testing.T) {
	for _, c := range []struct {
		name  string
		world world
		want  bool
	}{
		{"a slow line, text", world{line: 400, ratio: 0.3, effort: 2}, true},
		{"a slow line, incompressible", world{line: 400, ratio: 1.001, effort: 1}, false},
		{"a slow line, hardly compressible", world{line: 400, ratio: 0.95, effort: 2}, false},
		{"a line faster than the processor", world{line: 0.3, ratio: 0.3, effort: 2}, false},
		{"a line as fast as the processor", world{line: 2, ratio: 0.5, effort: 2}, false},
		{"a line as fast as memory, zeroes", world{line: 0.3, ratio: 0.01, effort: 0.05}, false},
		{"a gigabit, text", world{line: 8, ratio: 0.3, effort: 2}, true},
		{"a limited line that is not full", world{line: 0.2, ratio: 0.3, effort: 2, rate: 2_500_000}, true},
	} {
		var p Pack
		c.world.run(&p, 64<<20)
		part := c.world.run(&p, 1<<30)
		if p.Compresses() != c.want || c.want && part < 0.99 || !c.want && part > 0.01 {
			t.Errorf("%s: compresses %t, %.3f of the bytes", c.name, p.Compresses(), part)
		}
	}
}

// What is looked at now and then is what data and line are by now.
func TestCompressionFollowsDataAndLine(t *testing.T) {
	var p Pack
	noise, text, fast := world{line: 400, ratio: 1.001, effort: 1}, world{line: 400, ratio: 0.3, effort: 2}, world{line: 0.2, ratio: 0.3, effort: 2}
	for i, c := range []struct {
		world world
		total int
		want  bool
	}{
		{noise, 1 << 30, false}, {text, 256 << 20, true}, {noise, 64 << 20, false}, {fast, 256 << 20, false}, {text, 128 << 20, true},
	} {
		c.world.run(&p, c.total)
		if p.Compresses() != c.want {
			t.Errorf("step %d: compresses %t", i, p.Compresses())
		}
	}
}

// A slow line on which nothing waits any more, because what is sent is compressed, goes on being compressed for a while: else
// it would swing between the two.
func TestCompressionThatEmptiesALineGoesOn(t *testing.T) {
	var p Pack
	world{line: 400, ratio: 0.3, effort: 2}.run(&p, 64<<20)
	relieved := world{line: 0.2, ratio: 0.3, effort: 2}
	if part := relieved.run(&p, 512<<20); part < 0.99 {
		t.Errorf("%.3f of half a GiB was compressed", part)
	}
	if part := relieved.run(&p, 64<<30); part > 0.9 {
		t.Errorf("%.3f of 64 GiB was compressed: the line is never looked at again", part)
	}
}

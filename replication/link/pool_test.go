package link

import "testing"

func TestSegmentPoolTakesBackOnlyItsOwn(t *testing.T) {
	p := new(segmentPool)
	for _, n := range []int{0, 1, 2048, 2049, 4189, 16 << 10, 64 << 10, 64<<10 + 1} {
		b := p.Get(n)
		if len(*b) != n {
			t.Errorf("asked for %d bytes, got %d", n, len(*b))
		}
		*b = (*b)[:n/2] // as gRPC may give it back
		p.Put(b)
	}
	for _, odd := range []int{1, 300, 5000, 1 << 20} {
		b := make([]byte, odd)
		p.Put(&b)
		if got := p.Get(odd); len(*got) != odd || (odd <= 5000 && &(*got)[0] == &b[0]) {
			t.Errorf("memory of %d bytes that is no class of the pool's was handed out again", odd)
		}
	}
}

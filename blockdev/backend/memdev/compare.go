package memdev

import (
	"maps"
	"slices"

	"hacluster/blockdev"
)

// Differing returns in order the pages in which two devices of one size differ. What neither has ever written costs
// nothing.
func Differing(a, b *Dev) []blockdev.Range {
	p, q := a.snapshot(), b.snapshot()
	for i := range q {
		if _, ok := p[i]; !ok {
			p[i] = page{}
		}
	}
	var out []blockdev.Range
	for _, i := range slices.Sorted(maps.Keys(p)) {
		if p[i] != q[i] { // a page that is absent reads as zeroes
			out = append(out, pageRange(i))
		}
	}
	return out
}

func (d *Dev) snapshot() map[int64]page {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	all := make(map[int64]page, len(d.store.pages))
	for i, pg := range d.store.pages {
		all[i] = *pg
	}
	return all
}

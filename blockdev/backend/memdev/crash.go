package memdev

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sectorSize is what a disk writes whole or not at all; only Torn breaks it.
const sectorSize = 512

// Mode is what a power cut does to sectors that were written and not flushed.
type Mode int

const (
	// LoseUnflushed brings every sector back to what the last flush made durable.
	LoseUnflushed Mode = iota
	// KeepRandom decides for each sector by itself: durable content, newest, or one in between when
	// Config.Intermediate keeps those. A disk that reorders its cache does that.
	KeepRandom
	// Torn is KeepRandom, and some sectors hold the beginning of one content and the end of another.
	Torn
)

// CrashOptions say how the power goes.
type CrashOptions struct {
	// Rand decides, so that a seed repeats the crash. LoseUnflushed needs none.
	Rand *rand.Rand
	Mode Mode
}

// Clone returns a new device, open, that holds what a power cut at this moment would leave; all of it is durable there.
// The device itself goes on unharmed. It may be closed already.
func (d *Dev) Clone(o CrashOptions) *Dev {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	c := newStore(d.store.cfg)
	for i, pg := range d.store.pages {
		c.pages[i] = pg.copy()
	}
	old := maps.Clone(d.store.unflushed)
	maps.Copy(old, d.store.lost)
	for _, i := range slices.Sorted(maps.Keys(old)) { // in order: the same seed must crash the same way
		if pg := d.store.afterCrashLocked(i, old[i], o); pg != nil {
			c.pages[i] = pg
		} else {
			delete(c.pages, i)
		}
	}
	return &Dev{store: c}
}

// Reopen returns a new handle, open, on the same memory: what the next process finds when only the process died.
// Nothing is lost, and what was not durable still is not. The old handle should be closed.
func (d *Dev) Reopen() *Dev { return &Dev{store: d.store} }

// afterCrashLocked is page i, of which old are the earlier contents, the durable one first.
func (s *store) afterCrashLocked(i int64, old []*page, o CrashOptions) *page {
	if o.Mode == LoseUnflushed {
		return old[0].copy()
	}
	versions := append(append([]*page(nil), old...), s.pages[i])
	out := new(page)
	for at := 0; at < pageSize; at += sectorSize {
		sector := out[at : at+sectorSize]
		copySector(sector, versions[o.Rand.IntN(len(versions))], at)
		if o.Mode == Torn && o.Rand.IntN(2) == 0 {
			cut := o.Rand.IntN(sectorSize)
			copySector(sector[cut:], versions[o.Rand.IntN(len(versions))], at+cut)
		}
	}
	return out
}

func copySector(dst []byte, src *page, at int) {
	if src == nil {
		clear(dst)
		return
	}
	copy(dst, src[at:])
}

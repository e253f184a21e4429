package undo

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
)

// world is a replica that is being overwritten under the protection of an area, and what it was.
type world struct {
	t     *testing.T
	place *memPlace
	data  *memdev.Dev
	want  []byte

	mu  sync.Mutex // held while both are cloned, and while data is changed
	cut *rand.Rand
}

// check cuts the power at this moment: the area that is left leads back to the point, from whatever is left of the data.
// Before the area is there, and after it is gone, the data is not overwritten.
func (w *world) check() {
	w.mu.Lock()
	if w.cut.IntN(3) != 0 {
		w.mu.Unlock()
		return
	}
	how := memdev.CrashOptions{Rand: w.cut, Mode: memdev.Mode(w.cut.IntN(3))}
	place, data := w.place.clone(how), w.data.Clone(how)
	w.mu.Unlock()
	a, err := Open(Config{Binding: testBinding(), Place: place}, data)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer a.Close()
	if a.Damage() != "" {
		w.t.Errorf("after a power cut of mode %d: %s", how.Mode, a.Damage())
		return
	}
	if a.Live() {
		rollBack(w.t, a, data)
	}
	same(w.t, data, w.want)
}

// faults.md M58, K110: the power fails before and after every operation on the area, also within sectors, and between the
// overwrites. The way back leads to the point each time.
func TestPowerCutAtEveryStepLeavesAWayBack(t *testing.T) { // R18
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { cuts(t, rand.New(rand.NewPCG(seed, 6))) })
	}
}

func cuts(t *testing.T, g *rand.Rand) {
	w := &world{t: t, place: &memPlace{}, data: filled(t, g), cut: rand.New(rand.NewPCG(g.Uint64(), 7))}
	w.want = content(t, w.data)
	w.place.look = w.check
	a := opened(t, w.place, w.data)
	must(t, a.Begin(testPoint, 9, w.data))
	for round := range 12 {
		var goes sync.WaitGroup
		for i := range int64(4) { // several at a time, in a quarter of the volume each
			at := block(16*i+g.Int64N(14), 1+g.Int64N(2))
			p := make([]byte, at.Len)
			for k := range p {
				p[k] = byte(g.Uint32())
			}
			flush := g.IntN(4) == 0
			goes.Go(func() {
				if err := logged(a, at); err != nil {
					t.Error(err)
					return
				}
				w.mu.Lock()
				_, err := w.data.WriteAt(p, at.Off)
				if flush && err == nil {
					err = w.data.Flush()
				}
				w.mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			})
		}
		goes.Wait()
		w.check()
		if round == 7 { // the process dies, the machine does not
			must(t, a.Close())
			a = opened(t, w.place, w.data)
		}
	}
	rollBack(t, a, w.data)
	must(t, w.data.Flush())
	must(t, a.Discard())
	same(t, w.data, w.want)
}

// A process that died between write and flush of a group leaves it in the memory of the operating system. The next one
// must not count it as logged before it is durable.
func TestWhatWasOnlyWrittenIsMadeDurableBeforeItCounts(t *testing.T) { // R18
	g := rng(20)
	d := filled(t, g)
	want := content(t, d)
	p := &memPlace{}
	a := begun(t, p, d)
	must(t, logged(a, block(0, 1)))
	l := a.now()
	must(t, a.Close())
	l.failed = nil // the group is that of a process which goes on
	m := maker{l: l, content: make([]byte, MaxRecord), group: &group{l: l}}
	must(t, m.add(block(4, 2)))
	m.last.last = true
	m.last.encode(m.buf[m.at:], l.head.tag)
	raw := p.dev.Reopen()
	_, err := raw.WriteAt(m.buf, l.end) // and no flush
	must(t, err)
	b := opened(t, p, d)
	if ready, err := b.Log(block(4, 1), make(told, 1)); err != nil {
		t.Fatal(err)
	} else if ready {
		write(t, d, block(4, 1), g)
		must(t, d.Flush())
	}
	c := p.clone(memdev.CrashOptions{})
	data := d.Clone(memdev.CrashOptions{})
	rollBack(t, opened(t, c, data), data)
	same(t, data, want)
}

// faults.md M62: each byte that was durable and no longer is has the way back lost, unless it is of the last group, of
// which nobody can know that it was. Never does it lead elsewhere.
func TestM62DamageIsFoundAndNeverRolledBackTo(t *testing.T) { // R22
	g := rng(21)
	d := filled(t, g)
	want := content(t, d)
	p := &memPlace{}
	a := begun(t, p, d)
	for i := range int64(5) {
		must(t, logged(a, block(3*i, 1)))
	}
	lastGroup := a.now().end - recordSize - blockdev.BlockSize
	end := a.now().end
	must(t, a.Close())
	for at := int64(0); at < end; at += 97 {
		c := p.clone(memdev.CrashOptions{})
		flip(t, c.dev, at)
		b, err := Open(Config{Binding: testBinding(), Place: c}, d)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		switch {
		case at < lastGroup && (b.Live() || b.Damage() == ""):
			t.Fatalf("byte %d of what was durable is damaged, and nobody is told", at)
		case at >= lastGroup && !b.Live():
			t.Fatalf("byte %d of the last group: %s", at, b.Damage())
		case b.Live():
			data := d.Clone(memdev.CrashOptions{})
			rollBack(t, b, data)
			same(t, data, want)
		}
		must(t, b.Discard())
	}
}

// What rots while the process runs is found on the way back.
func TestDamageUnderARunningProcessIsFound(t *testing.T) {
	d := filled(t, rng(22))
	p := &memPlace{}
	a := begun(t, p, d)
	must(t, logged(a, block(0, 1)))
	must(t, logged(a, block(1, 1)))
	flip(t, p.dev, headerSize+recordSize+100)
	if err := a.Each(func(blockdev.Range, []byte) error { return nil }); err == nil {
		t.Fatal("the way back leads through damaged content")
	}
	p = &memPlace{}
	a = begun(t, p, d)
	must(t, logged(a, block(0, 1)))
	flip(t, p.dev, headerSize+recordSize+100) // of the last group
	if err := a.Each(func(blockdev.Range, []byte) error { return nil }); err == nil {
		t.Fatal("the way back leads past damaged content at the end")
	}
}

func flip(t testing.TB, d *memdev.Dev, at int64) {
	t.Helper()
	var b [1]byte
	_, err := d.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 0x10
	_, err = d.WriteFUA(b[:], at)
	must(t, err)
}

// resum makes the checksum of a header right.
func resum(p []byte) {
	binary.LittleEndian.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
}

// resumRecord makes the checksum of a record right.
func resumRecord(p []byte) {
	binary.LittleEndian.PutUint32(p[recChecked:], crc32.Checksum(p[:recChecked], castagnoli))
}

package undo

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
)

const (
	testVolume = 64 * blockdev.BlockSize
	testRoom   = 512 << 10 // of the store: room for every block more than once
)

func testBinding() Binding {
	return Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "alpha", Size: testVolume, Attachment: "file:17:4711.99:5", Epoch: 9}
}

var testPoint = Point{Epoch: 7, AtMillis: 1764000000123}

// memPlace is a Place in memory. It outlives its Areas; a power cut is a clone of it.
type memPlace struct {
	dev    *memdev.Dev
	faults *faultdev.Dev // of the store that is open
	room   int64
	look   func() // before and after every operation; may be nil
	err    error  // of Create and Remove
}

type memStore struct {
	blockdev.Device
	p *memPlace
}

func (p *memPlace) seen() {
	if p.look != nil {
		p.look()
	}
}

func (p *memPlace) Open() (Store, error) {
	if p.dev == nil {
		return nil, ErrNone
	}
	p.dev = p.dev.Reopen()
	p.faults = faultdev.New(p.dev)
	return &memStore{p.faults, p}, nil
}

func (p *memPlace) Create(head []byte) (Store, error) {
	if p.err != nil {
		return nil, p.err
	}
	d := memdev.New(memdev.Config{Size: max(p.room, testRoom), Intermediate: 2})
	if _, err := d.WriteFUA(head, 0); err != nil {
		return nil, err
	}
	p.seen()
	p.dev = d
	p.seen()
	return p.Open()
}

func (p *memPlace) Remove() error {
	if p.err != nil {
		return p.err
	}
	p.seen()
	p.dev = nil
	p.seen()
	return nil
}

// clone is what a power cut leaves of it.
func (p *memPlace) clone(o memdev.CrashOptions) *memPlace {
	c := &memPlace{}
	if p.dev != nil {
		c.dev = p.dev.Clone(o)
	}
	return c
}

func (s *memStore) Size() (int64, error) { return s.Device.Size(), nil }

func (s *memStore) Truncate(size int64) error {
	s.p.seen()
	return s.Device.Zero(blockdev.Range{Off: size, Len: s.Device.Size() - size}, true)
}

func (s *memStore) WriteAt(b []byte, off int64) (int, error) {
	s.p.seen()
	n, err := s.Device.WriteAt(b, off)
	s.p.seen()
	if errors.Is(err, blockdev.ErrNoSpace) || errors.Is(err, blockdev.ErrRange) {
		err = errors.Join(ErrNoRoom, err)
	}
	return n, err
}

func (s *memStore) Flush() error {
	s.p.seen()
	err := s.Device.Flush()
	s.p.seen()
	return err
}

func opened(t testing.TB, p Place, src Source) *Area {
	t.Helper()
	a, err := Open(Config{Binding: testBinding(), Place: p}, src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func begun(t testing.TB, p Place, src Source) *Area {
	t.Helper()
	a := opened(t, p, src)
	if err := a.Begin(testPoint, 9, src); err != nil {
		t.Fatal(err)
	}
	return a
}

type told chan error

func (c told) Logged(err error) { c <- err }

// logged waits until the old content of a range is durable.
func logged(a *Area, at blockdev.Range) error {
	c := make(told, 1)
	ready, err := a.Log(at, c)
	if err == nil && !ready {
		err = <-c
	}
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func block(i int64, n int64) blockdev.Range {
	return blockdev.Range{Off: i * blockdev.BlockSize, Len: n * blockdev.BlockSize}
}

// filled is a volume of which every third block is a hole, and others are random.
func filled(t testing.TB, rng *rand.Rand) *memdev.Dev {
	t.Helper()
	d := memdev.New(memdev.Config{Size: testVolume})
	for i := range int64(testVolume / blockdev.BlockSize) {
		if i%3 != 2 {
			write(t, d, block(i, 1), rng)
		}
	}
	must(t, d.Flush())
	return d
}

func write(t testing.TB, d blockdev.Device, at blockdev.Range, rng *rand.Rand) {
	t.Helper()
	p := make([]byte, at.Len)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	_, err := d.WriteAt(p, at.Off)
	must(t, err)
}

func content(t testing.TB, d blockdev.Device) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	_, err := d.ReadAt(p, 0)
	must(t, err)
	return p
}

// rollBack writes back all that an area holds.
func rollBack(t testing.TB, a *Area, d blockdev.Device) {
	t.Helper()
	must(t, a.Each(func(at blockdev.Range, p []byte) error {
		if p == nil {
			return d.Zero(at, true)
		}
		_, err := d.WriteAt(p, at.Off)
		return err
	}))
}

func same(t testing.TB, d blockdev.Device, want []byte) {
	t.Helper()
	got := content(t, d)
	for i := 0; i < len(want); i += blockdev.BlockSize {
		if !bytes.Equal(got[i:i+blockdev.BlockSize], want[i:i+blockdev.BlockSize]) {
			t.Fatalf("block %d is not what it was at the point", i/blockdev.BlockSize)
		}
	}
}

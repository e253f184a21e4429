package rescue

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
)

const testVolume = 64 * blockdev.BlockSize

var testPoint = undo.Point{Epoch: 4, AtMillis: 1764000000123}

// rig is a replica with its shelf, which outlives its processes.
type rig struct {
	t     *testing.T
	mem   *memdev.Dev
	dev   *faultdev.Dev
	room  *Dir
	limit int64
	shelf *Shelf
	ended []string
	left  []string

	unnoted []string
	rng     *rand.Rand
	attach  string
}

func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	g := &rig{t: t, mem: memdev.New(memdev.Config{Size: testVolume}), rng: rand.New(rand.NewPCG(seed, 9)), attach: "1",
		room: &Dir{Path: filepath.Join(t.TempDir(), "rescue")}}
	g.dev = faultdev.New(g.mem)
	for b := range int64(testVolume / blockdev.BlockSize) {
		if b%3 != 0 { // some are holes
			g.put(block(b, 1))
		}
	}
	g.open(false)
	t.Cleanup(func() { _ = g.shelf.Stop() })
	return g
}

func block(first, n int64) blockdev.Range {
	return blockdev.Range{Off: first * blockdev.BlockSize, Len: n * blockdev.BlockSize}
}

func (g *rig) open(inPieces bool) {
	g.t.Helper()
	s, err := Open(Config{Room: g.room, Limit: g.limit, Patience: time.Minute, Ended: func(id, why string) { g.ended = append(g.ended, id+": "+why) },
		Left:    func(id string, err error) { g.left = append(g.left, id+": "+err.Error()) },
		Unnoted: func(err error) { g.unnoted = append(g.unnoted, err.Error()) },
		Binding: undo.Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "alpha", Size: testVolume, Attachment: g.attach, Epoch: 9}}, g.dev, inPieces)
	must(g.t, err)
	g.shelf = s
}

// put writes random bytes, as nobody does behind the shelf's back.
func (g *rig) put(at blockdev.Range) {
	g.t.Helper()
	p := make([]byte, at.Len)
	for i := range p {
		p[i] = byte(g.rng.Uint32())
	}
	_, err := g.mem.WriteAt(p, at.Off)
	must(g.t, err)
}

// write is what a member writes: parts of blocks, and trims among them.
func (g *rig) write(at blockdev.Range) {
	g.t.Helper()
	g.shelf.Keep(at)
	if g.rng.IntN(5) == 0 {
		must(g.t, g.mem.Zero(at, true))
		return
	}
	g.put(at)
}

func (g *rig) content() []byte {
	g.t.Helper()
	p := make([]byte, testVolume)
	_, err := g.mem.ReadAt(p, 0)
	must(g.t, err)
	return p
}

// resync overwrites some blocks into the image that is live.
func (g *rig) resync(ranges ...blockdev.Range) {
	g.t.Helper()
	a, _ := g.shelf.Live()
	for _, at := range ranges {
		w := make(told, 1)
		ready, err := a.Log(at, w)
		if err == nil && !ready {
			err = <-w
		}
		must(g.t, err)
		g.put(at)
	}
}

type told chan error

func (c told) Logged(err error) { c <- err }

// rescued is a rig with one image that is closed, and what the volume was.
func rescued(t *testing.T, seed uint64, ranges ...blockdev.Range) (g *rig, want []byte, id string) {
	t.Helper()
	g = newRig(t, seed)
	want = g.content()
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(ranges...)
	info, err := g.shelf.Finish(time.UnixMilli(1764000009000))
	must(t, err)
	return g, want, info.ID
}

// exported reads an image to its end; between is called before every piece.
func (g *rig) exported(id string, partial bool, between func()) ([]byte, error) {
	g.t.Helper()
	out := make([]byte, testVolume)
	for c := (Cursor{}); ; {
		if between != nil {
			between()
		}
		p, err := g.shelf.Read(id, c, partial)
		if err != nil {
			return nil, err
		}
		for _, part := range p.Parts {
			clear(out[part.Off : part.Off+part.Len])
			copy(out[part.Off:part.Off+part.Len], part.Data)
		}
		if p.End {
			return out, nil
		}
		c = p.Next
	}
}

func (g *rig) same(id string, want []byte) {
	g.t.Helper()
	got, err := g.exported(id, false, nil)
	must(g.t, err)
	differ(g.t, got, want)
}

func differ(t *testing.T, got, want []byte) {
	t.Helper()
	for b := 0; b < len(want); b += blockdev.BlockSize {
		if !bytes.Equal(got[b:b+blockdev.BlockSize], want[b:b+blockdev.BlockSize]) {
			t.Fatalf("block %d is not what it was when the resync began", b/blockdev.BlockSize)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func resum(p []byte) []byte {
	binary.LittleEndian.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
	return p
}

package nbd_test

import (
	"net"
	"path/filepath"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// gathering is an export that does nothing of what waits for company before Push: requests without More take nothing along,
// as a read does, or a write that overlaps with the one before it. A server that forgets to push waits for ever.
type gathering struct {
	*nbdtest.Export
	submitted func(*blockdev.Request) // nil: nothing

	mu     sync.Mutex
	held   []*blockdev.Request
	most   int // that were held at a time
	pushes int // of something
}

var _ nbd.Gatherer = (*gathering)(nil)

func (g *gathering) Submit(r *blockdev.Request) {
	g.mu.Lock()
	more := r.More
	if more {
		g.held = append(g.held, r)
	}
	g.most = max(g.most, len(g.held))
	g.mu.Unlock()
	if g.submitted != nil {
		g.submitted(r)
	}
	if !more {
		g.Export.Submit(r)
	}
}

func (g *gathering) Push() {
	g.mu.Lock()
	if len(g.held) > 0 {
		g.pushes++
	}
	g.mu.Unlock()
	g.do()
}

func (g *gathering) do() {
	g.mu.Lock()
	held := g.held
	g.held = nil
	g.mu.Unlock()
	for _, r := range held {
		g.Export.Submit(r)
	}
}

func (g *gathering) seen() (most, pushes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most, g.pushes
}

// oneExport serves a single export.
type oneExport struct{ e nbd.Export }

func (x oneExport) Lookup(string) (nbd.Export, error) { return x.e, nil }
func (x oneExport) Names() []string                   { return nil }

func newGathering(t *testing.T, cfg nbd.Config) (*rig, *gathering) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	g := &gathering{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 2)}
	t.Cleanup(g.Close)
	return serveOn(t, cfg, oneExport{g}, l), g
}

// wantAll reads n answers in any order.
func wantAll(t *testing.T, w *wire, n, payload int) {
	t.Helper()
	for range n {
		if errno, _ := w.simple(); errno != nbdproto.OK {
			t.Fatalf("answered %v", errno)
		}
		w.read(payload)
	}
}

// Requests that arrive together are submitted together; none waits for company while the reader waits for something
// else: for its own answers, for memory, for the rest of a request.
func TestRequestsThatArriveTogetherAreGathered(t *testing.T) {
	write := req(nbdproto.CmdWrite, 0, 1, 0, 4096, pattern(4096, 1)...)
	read := req(nbdproto.CmdRead, 0, 1, 0, 128<<10)
	for _, c := range []struct {
		name         string
		cfg          nbd.Config
		bytes        []byte
		n, payload   int // answers, and what each brings
		most, pushes int
	}{
		{name: "all at hand", bytes: repeat(write, 8), n: 8, most: 8},
		{name: "half a request behind", bytes: append(repeat(write, 3), write[:2000]...), n: 3, most: 3},
		{name: "half a header behind", bytes: append(repeat(write, 3), write[:20]...), n: 3, most: 3},
		{name: "a limit on requests", cfg: nbd.Config{MaxRequestsInFlight: 2}, bytes: repeat(write, 9), n: 9, most: 2, pushes: 1},
		{name: "a limit on memory", cfg: nbd.Config{MaxConnBytesInFlight: 256 << 10}, bytes: repeat(read, 9), n: 9, payload: 128 << 10, most: 2, pushes: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, g := newGathering(t, c.cfg)
			w := r.session()
			w.write(c.bytes)
			wantAll(t, w, c.n, c.payload)
			if most, pushes := g.seen(); most > c.most || pushes < c.pushes {
				t.Errorf("%d gathered, at most %d were at hand; %d pushes, at least %d were due", most, c.most, pushes, c.pushes)
			}
		})
	}
}

// R11: a suspension that comes between two requests does not hold back the one that was admitted.
func TestGatheredRequestIsPushedBeforeASuspension(t *testing.T) {
	r, g := newGathering(t, nbd.Config{})
	var once sync.Once
	g.submitted = func(*blockdev.Request) { once.Do(g.Suspend) }
	w := r.session()
	w.write(repeat(req(nbdproto.CmdWrite, 0, 1, 0, 512, pattern(512, 1)...), 2))
	eventually(t, "the first request to be carried out", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.most == 1 && len(g.held) == 0
	})
	g.Resume()
	wantAll(t, w, 2, 0)
}

func repeat(b []byte, n int) (all []byte) {
	for range n {
		all = append(all, b...)
	}
	return all
}

package rescue

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
)

// slow is a replica whose reads hang until it is let go, or so many have gathered.
type slow struct {
	undo.Source
	mu    sync.Mutex
	until int
	n     int
	free  chan struct{}
}

func (s *slow) hang(until int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until, s.n, s.free = until, 0, make(chan struct{})
}

func (s *slow) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	hang := s.free
	if s.n++; hang != nil && s.n == s.until {
		close(hang)
	}
	s.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return s.Source.ReadAt(p, off)
}

// several is a shelf of five images that are closed.
func several(t *testing.T) (*rig, *slow) {
	t.Helper()
	g := newRig(t, 19)
	src := &slow{Source: g.dev}
	s, err := Open(Config{Room: &Dir{Path: filepath.Join(t.TempDir(), "rescue")}, Patience: time.Minute,
		Ended:   func(id, why string) { g.ended = append(g.ended, id+": "+why); g.shelf.cfg.Patience = time.Hour },
		Binding: undo.Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "alpha", Size: testVolume, Attachment: g.attach, Epoch: 9}}, src, false)
	must(t, err)
	g.shelf = s
	for e := range uint64(5) {
		must(t, s.Begin(testPoint, e+1))
		g.resync(block(int64(e)*3+1, 1))
		_, err := s.Finish(time.UnixMilli(1))
		must(t, err)
	}
	return g, src
}

// All images copy beside each other.
func TestNoImageWaitsForAnother(t *testing.T) {
	g, src := several(t)
	src.hang(5)
	g.shelf.Keep(block(40, 1))
	if len(g.ended) > 0 {
		t.Fatalf("each waited for the one before it: %v", g.ended)
	}
}

// A write waits for all images together no longer than for one.
func TestPatienceIsForAllImagesTogether(t *testing.T) {
	g, src := several(t)
	src.hang(0)
	g.shelf.cfg.Patience = time.Millisecond // an hour as soon as the first has ended
	done := make(chan struct{})
	go func() { g.shelf.Keep(block(40, 1)); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("after the first it waits for the next")
	}
	close(src.free)
	<-done
	if len(g.ended) != 5 {
		t.Errorf("ended: %v", g.ended)
	}
}

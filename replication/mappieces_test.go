package replication

import (
	"context"
	"testing"

	"hacluster/blockdev/bitmap"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// R15: a map that comes in pieces is taken whole.
func TestMapThatComesInPiecesIsTakenWhole(t *testing.T) {
	theirs := bitmap.New(2 * bitmap.ChunkUnit)
	for i := int64(0); i < bitmap.ChunkUnit; i += 2 {
		theirs.Set(i, i+1) // a piece of its own
	}
	for i := int64(bitmap.ChunkUnit); i < bitmap.ChunkUnit+1000; i += 2 {
		theirs.Set(i, i+1)
	}
	l := newLab(t, labConfig{size: theirs.Len() * (4 << 20)}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	asked := make(chan uint64, 16)
	b.impersonate(func(_ context.Context, s *link.Session) error {
		if err := s.Reply(wire.HelloReply{Node: "b", Boot: b.boot, Attachment: "1", Process: 1}); err != nil {
			return err
		}
		for {
			batch, err := s.Recv()
			if err != nil {
				return err
			}
			for i := range batch.Frames {
				if f := &batch.Frames[i]; f.Kind == wire.Marks {
					asked <- f.ID
					piece, _ := theirs.AppendChunk(nil, int64(f.ID), bitmap.MinChunk)
					err = s.Send(wire.Reply{Kind: wire.MarksReply, ID: f.ID, Map: piece})
				}
			}
			batch.Free()
			if err != nil {
				return err
			}
		}
	})
	l.form("a", "b")
	l.promote("a", cluster.BasisFirst)
	a.grant()
	ten := a.serving()
	var hot int64
	l.await("the map to be complete", func() bool {
		ten.mu.Lock()
		defer ten.mu.Unlock()
		if h := ten.peer("b").hot; h != nil {
			hot = h.Count()
		}
		return hot > 0
	})
	if hot != theirs.Count() || len(asked) != 2 {
		t.Errorf("%d regions of %d were taken, in %d pieces", hot, theirs.Count(), len(asked))
	}
}

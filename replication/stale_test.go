package replication

import (
	"context"
	"errors"
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/standby"
	"hacluster/replication/wire"
)

// faults.md G42: streams are numbered anew in each epoch, so two of different epochs may have one number. A reader that
// was kept from running between two frames of a message, while its epoch ended and the next one's stream began, must not
// put the rest of its message into that (R2).
func TestRestOfAMessageIsNotTakenIntoAStreamOfTheSameNumberInANewerEpoch(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	a.serving()
	a.connected("b")
	old := b.session()

	a.crash() // its next process is promoted anew
	a.start()
	l.promote("a", cluster.BasisUnchanged)
	a.grant()
	c := a.serving().client(t)
	l.await("b to be a member again", func() bool { return l.volume().IsMember("b") })
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	now := b.session()
	if now == old || now.epoch <= old.epoch {
		t.Fatalf("stream of epoch %d after one of epoch %d", now.epoch, old.epoch)
	}
	// Their numbers are those of the attempts that it took. One that took as many as the other is made here.
	old = &session{r: old.r, link: old.link, epoch: old.epoch, stream: now.stream, box: old.box}

	req := writeReq(0, pattern(4096, 2))
	rest := new(link.Batch)
	rest.Ref()
	rest.Frames = []wire.Frame{{Kind: wire.Write, Seq: b.received() + 1, Range: req.Range, Payload: [][]byte{req.Buf.Bytes()}, Sum: req.Sum}}
	if err := old.take(t.Context(), rest); !errors.Is(err, standby.ErrStale) {
		t.Errorf("a write of epoch %d is taken in epoch %d: %v", old.epoch, now.epoch, err)
	}
	begin := new(link.Batch)
	begin.Ref()
	begin.Frames = []wire.Frame{{Kind: wire.Begin, ID: 1}}
	if err := old.take(t.Context(), begin); !errors.Is(err, standby.ErrStale) {
		t.Errorf("a stream of epoch %d begins in epoch %d: %v", old.epoch, now.epoch, err)
	}
	if err := c.write(4096, pattern(4096, 3)); err != nil { // with the number that the write above bore
		t.Fatal(err)
	}
	l.same("a", "b")
}

func (n *labNode) session() *session {
	r := n.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session
}

func (n *labNode) received() uint64 {
	r := n.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recv.LastNum()
}

// boundless is a labNodeView whose leader never answers: it hangs, and its machine still answers for its connections.
type boundless struct {
	labNodeView
	asked chan bool // whether the asking had a bound
}

func (b boundless) Propose(ctx context.Context, _ cluster.Command) (cluster.Result, error) {
	return cluster.Result{}, b.hang(ctx)
}

func (b boundless) GiveUp(ctx context.Context, _ string, _ cluster.Epoch, _ string, _ bool) error {
	return b.hang(ctx)
}

func (b boundless) hang(ctx context.Context) error {
	_, bounded := ctx.Deadline()
	select {
	case b.asked <- bounded:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

// A leader that was stopped never answers, and its machine keeps the connection: whoever asks it must come back to ask
// the next one, or a promoted replica would never serve, though the others have a leader again.
func TestWhatARoleAsksOfALeaderThatHangsHasABound(t *testing.T) {
	for _, tc := range []struct {
		name   string
		failed bool
	}{{"the removal of the old primary", false}, {"a give-up", true}} {
		t.Run(tc.name, func(t *testing.T) {
			l := formed(t, labConfig{inline: true}, "a", "b")
			b := l.nodes["b"]
			view := boundless{labNodeView{b}, make(chan bool, 1)}
			r := b.get()
			if err := b.halt(); err != nil {
				t.Fatal(err)
			}
			b.sb.mu.Lock()
			b.sb.failed = tc.failed
			b.sb.mu.Unlock()
			cfg := r.cfg
			cfg.DropAfter = 10 * time.Millisecond
			again := New(cfg, view, b.dev, b.super)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- again.Run(ctx) }()
			defer func() { cancel(); <-done }()
			l.promote("b", cluster.BasisUnchanged)
			b.grant()
			again.Applied(*l.volume())
			for range 2 { // it asks again
				if !<-view.asked {
					t.Fatal("it waits for the answer without a bound")
				}
			}
		})
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
)

// sends is where a gather sends to: each proposal waits until it is let.
type sends struct {
	mu    sync.Mutex
	sizes []int
	let   chan struct{}
	begun chan struct{}
	err   error
}

func (s *sends) send(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	items := c.Items()
	s.mu.Lock()
	s.sizes = append(s.sizes, len(items))
	s.mu.Unlock()
	s.begun <- struct{}{}
	select {
	case <-s.let:
	case <-ctx.Done():
		return cluster.Result{}, fmt.Errorf("%w: %w", consensus.ErrUnknown, ctx.Err())
	}
	var parts []cluster.Result
	for _, i := range items {
		parts = append(parts, cluster.Result{Void: i.Drop.Volume})
	}
	if s.err != nil {
		return cluster.Result{}, s.err
	}
	return resultOf(parts), nil
}

func gatherTo(t *testing.T, s *sends) *gather {
	s.let, s.begun = make(chan struct{}), make(chan struct{}, 64)
	var goes sync.WaitGroup
	t.Cleanup(goes.Wait)
	return &gather{send: s.send, time: func() time.Duration { return time.Minute }, goes: func(f func()) { goes.Go(f) }, ctx: t.Context()}
}

func dropOf(volume string) cluster.Command {
	return cluster.Command{By: "alpha", Drop: &cluster.Drop{On: cluster.On{Volume: volume}, Node: "beta"}}
}

// One goes alone and at once; what comes meanwhile goes together, and each gets its own result.
func TestWhatComesDuringAProposalIsProposedTogether(t *testing.T) {
	for _, failed := range []error{nil, errors.New("no leader")} {
		s := &sends{err: failed}
		g := gatherTo(t, s)
		var goes sync.WaitGroup
		propose := func(c cluster.Command, want string) {
			goes.Go(func() {
				r, err := g.propose(t.Context(), c)
				var got []string
				for _, p := range r.Results() {
					got = append(got, p.Void)
				}
				if !errors.Is(err, failed) || failed == nil && strings.Join(got, " ") != want {
					t.Errorf("%v, %v; want %s", got, err, want)
				}
			})
		}
		propose(dropOf("first"), "first")
		<-s.begun
		for i := range 100 {
			propose(dropOf(fmt.Sprint("v", i)), fmt.Sprint("v", i))
		}
		propose(cluster.Together([]cluster.Command{dropOf("x"), dropOf("y")}), "x y")
		for waiting := 0; waiting < 101; {
			g.mu.Lock()
			waiting = len(g.waiting)
			g.mu.Unlock()
		}
		close(s.let)
		goes.Wait()
		if len(s.sizes) != 2 || s.sizes[0] != 1 || s.sizes[1] != 102 {
			t.Errorf("proposed %v at a time, want 1 and 102", s.sizes)
		}
	}
}

// R27: who waits no longer does not know, and keeps nobody else waiting.
func TestProposalWhoseTimeIsOverIsUnknown(t *testing.T) {
	s := &sends{}
	g := gatherTo(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := g.propose(ctx, dropOf("a")); first <- err }()
	<-s.begun
	cancel()
	if err := <-first; !errors.Is(err, consensus.ErrUnknown) {
		t.Errorf("%v", err)
	}
	close(s.let)
	if r, err := g.propose(t.Context(), dropOf("b")); err != nil || r.Void != "b" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestEntriesHoldAsMuchAsTheyMay(t *testing.T) { // R28
	var few, long []cluster.Command
	for i := range cluster.MaxBatch + 1 {
		few = append(few, dropOf(fmt.Sprint("v", i)))
	}
	for range 64 {
		c := dropOf("v")
		var reason strings.Builder // that no compression makes much less of
		for reason.Len() < consensus.GoodCommand/16 {
			reason.WriteByte(byte('!' + rand.IntN(90)))
		}
		c.Drop.Reason = reason.String()
		long = append(long, c)
	}
	for name, all := range map[string][]cluster.Command{"many": few, "long": long, "one": few[:1], "none": nil} {
		var got []cluster.Command
		for _, c := range entriesOf(all) {
			if n := len(c.Encode()); n > consensus.GoodCommand || len(c.Batch) > cluster.MaxBatch {
				t.Errorf("%s: an entry of %d commands and %d bytes", name, len(c.Batch), n)
			}
			got = append(got, c.Items()...)
		}
		if name == "long" && len(entriesOf(all)) < 2 {
			t.Errorf("%s: they are one entry", name)
		}
		if len(got) != len(all) {
			t.Errorf("%s: %d of %d commands", name, len(got), len(all))
		}
	}
}

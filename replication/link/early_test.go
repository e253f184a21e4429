package link

import (
	"context"
	"sync"
	"testing"

	"hacluster/replication/wire"
)

// A standby that stops, or whose disk stalls, puts its last word into the box while the greeting is still being answered.
// Both go through one output: the word follows the answer.
func TestReplyBeforeTheGreetingIsAnsweredFollowsTheAnswer(t *testing.T) {
	addr := serve(t, func(ctx context.Context, s *Session) error {
		box := NewReplyBox(s)
		if err := box.Put(wire.Reply{Kind: wire.Nack, Seq: 1, Code: wire.Stopping}); err != nil {
			return err
		}
		box.Flush()
		if err := accept(s); err != nil {
			return err
		}
		var run sync.WaitGroup
		run.Go(func() { _ = box.Run(ctx) })
		box.Drain(ctx)
		s.Close()
		run.Wait()
		return nil
	})
	s := dial(t, addr)
	replies, err := s.Recv()
	if err != nil || len(replies) != 1 || replies[0].Kind != wire.Nack || replies[0].Code != wire.Stopping {
		t.Errorf("%+v, %v: the last word is wanted", replies, err)
	}
}

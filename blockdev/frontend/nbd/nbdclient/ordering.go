package nbdclient

import (
	"context"
	"slices"
	"sync"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// ordering lets operations that conflict pass one at a time, in the order in which they came. Two conflict when they
// overlap and at least one of them changes the range. Each waits only for earlier ones, so that nobody waits in a circle.
// It holds one entry for each caller that is blocked in an operation, and nothing else.
type ordering struct {
	mu    sync.Mutex
	turns []*turn
}

type turn struct {
	op   Op
	over chan struct{} // closed by leave
}

// enter blocks until every earlier operation that conflicts with op has left.
func (o *ordering) enter(ctx context.Context, op Op) (*turn, error) {
	t := &turn{op: op, over: make(chan struct{})}
	o.mu.Lock()
	var before []*turn
	for _, e := range o.turns {
		if conflict(e.op, op) {
			before = append(before, e)
		}
	}
	o.turns = append(o.turns, t)
	o.mu.Unlock()
	for _, e := range before {
		select {
		case <-e.over:
		case <-ctx.Done():
			o.leave(t)
			return nil, ctx.Err()
		}
	}
	return t, nil
}

func (o *ordering) leave(t *turn) {
	o.mu.Lock()
	o.turns = slices.DeleteFunc(o.turns, func(e *turn) bool { return e == t })
	o.mu.Unlock()
	close(t.over)
}

func conflict(a, b Op) bool { return (changes(a.Cmd) || changes(b.Cmd)) && a.Range.Overlaps(b.Range) }

func changes(c nbdproto.Cmd) bool {
	return c == nbdproto.CmdWrite || c == nbdproto.CmdTrim || c == nbdproto.CmdWriteZeroes
}

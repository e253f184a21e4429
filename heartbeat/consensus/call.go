package consensus

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// enqueueLimit bounds how long raft's main loop may take to accept a call whose context has no deadline. Nothing is
// appended when it runs out.
const enqueueLimit = 10 * time.Second

// Propose appends a command and waits until this node has applied it. result is what StateMachine.Apply returned, index
// the command's place in the log. For errors see ErrUnknown.
func (r *Raft) Propose(ctx context.Context, command []byte) (result any, index uint64, err error) {
	if len(command) > maxCommand {
		return nil, 0, fmt.Errorf("propose: nothing appended: the command has %d bytes, the limit is %d", len(command), maxCommand)
	}
	answer := r.call(ctx, "propose", func(wait time.Duration) (a answer) {
		f := r.node.Apply(command, wait)
		if a.index, a.err = outcome("propose", f); a.err == nil {
			a.result = f.Response()
			select {
			case r.spread <- struct{}{}:
			default: // one is due already
			}
		}
		return a
	})
	return answer.result, answer.index, answer.err
}

// Barrier waits until everything that was committed before it is applied here. A new leader calls it before it relies
// on its state.
func (r *Raft) Barrier(ctx context.Context) error {
	return r.call(ctx, "barrier", func(wait time.Duration) (a answer) {
		_, a.err = outcome("barrier", r.node.Barrier(wait))
		return a
	}).err
}

// spreadCommits has the followers learn of a commit at once. By itself raft tells them with the next entry or heartbeat
// of the log, which it sends each Config.Commit: for both to be soon, an idle group would have to send them all the time
// (at 10 ms, half of an idle leader's work). Here an empty entry follows each command that nothing else follows.
func (r *Raft) spreadCommits() {
	for {
		select {
		case <-r.spread:
			ctx, cancel := context.WithTimeout(context.Background(), r.cfg.LeaderLease)
			_ = r.Barrier(ctx) // whoever leads next has told them by then
			cancel()
		case <-r.stop:
			return
		}
	}
}

// answer is what a call came to.
type answer struct {
	result any
	index  uint64
	err    error
}

// call runs fn, which waits for one of raft's futures, and returns early when ctx ends: futures cannot be abandoned,
// so a goroutine stays with each until raft answers, and Close waits for it.
func (r *Raft) call(ctx context.Context, doing string, fn func(wait time.Duration) answer) answer {
	wait := enqueueLimit
	if at, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(at))
	}
	if err := r.enter(ctx, wait); err != nil {
		return answer{err: fmt.Errorf("%s: nothing appended: %w", doing, err)}
	}
	done := make(chan answer, 1)
	go func() {
		defer r.calls.Done()
		defer func() { <-r.places }()
		done <- fn(wait)
	}()
	select {
	case a := <-done:
		return a
	case <-ctx.Done():
		return answer{err: fmt.Errorf("%s: %w: %w", doing, ErrUnknown, context.Cause(ctx))}
	case <-r.failed:
		return answer{err: fmt.Errorf("%s: %w: %w", doing, ErrUnknown, *r.failure.Load())}
	}
}

// enter admits a call, or says why not. Whoever is admitted holds a place and counts in r.calls.
func (r *Raft) enter(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return context.DeadlineExceeded
	}
	select {
	case r.places <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%d calls are waiting already: %w", maxCalls, context.Cause(ctx))
	case <-r.failed:
		return ErrFailed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	switch {
	case r.closed:
		err = ErrClosed
	case r.failure.Load() != nil:
		err = ErrFailed
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	default:
		r.calls.Add(1)
		return nil
	}
	<-r.places
	return err
}

// simple adapts a future that appends nothing itself.
func simple(doing string, f raft.Future) answer {
	if err := f.Error(); err != nil {
		return answer{err: fmt.Errorf("%s: %w", doing, err)}
	}
	return answer{}
}

package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
)

// gather proposes what comes while a proposal is on its way together, as the next one: a command that finds none on its way goes
// at once and alone, a thousand that come together make a few. Nothing waits for more to come. Each command keeps its own
// compare-and-set (R7), and each proposer its own time limit: one that is over leaves the outcome unknown (R27).
type gather struct {
	// send proposes one command, which may be a batch; the result has as many parts.
	send func(context.Context, cluster.Command) (cluster.Result, error)
	time func() time.Duration // that one proposal may take
	goes func(func())         // begins the goroutine that sends; ctx ends what it waits for
	ctx  context.Context

	mu      sync.Mutex
	busy    bool
	waiting []*gathered // bounded: each volume proposes one thing at a time
}

// gathered is one proposal, of one command or of a batch.
type gathered struct {
	items  []cluster.Command
	done   chan struct{} // closed when result and err are there
	result cluster.Result
	err    error
}

// propose has c proposed and waits for what it came to.
func (g *gather) propose(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	p := &gathered{items: c.Items(), done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	begin := !g.busy
	g.busy = true
	g.mu.Unlock()
	if begin {
		g.goes(g.run)
	}
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		g.mu.Lock()
		g.waiting = slices.DeleteFunc(g.waiting, func(o *gathered) bool { return o == p }) // if it was not taken yet
		g.mu.Unlock()
		return cluster.Result{}, fmt.Errorf("propose: %w: %w", consensus.ErrUnknown, context.Cause(ctx))
	}
}

// run sends until nothing waits.
func (g *gather) run() {
	for {
		g.mu.Lock()
		next := g.takeLocked()
		g.busy = len(next) > 0
		g.mu.Unlock()
		if len(next) == 0 {
			return
		}
		g.sendAll(next)
	}
}

// takeLocked takes what fits into one entry.
func (g *gather) takeLocked() (next []*gathered) {
	items := 0
	for len(g.waiting) > 0 {
		p := g.waiting[0]
		if items += len(p.items); items > cluster.MaxBatch && len(next) > 0 {
			break
		}
		g.waiting[0], g.waiting = nil, g.waiting[1:]
		next = append(next, p)
	}
	return next
}

// sendAll proposes some together, or in two parts when an entry does not hold as many bytes.
func (g *gather) sendAll(some []*gathered) {
	var items []cluster.Command
	for _, p := range some {
		items = append(items, p.items...)
	}
	c := cluster.Together(items)
	if half := len(some) / 2; half > 0 && len(c.Encode()) > consensus.GoodCommand {
		g.sendAll(some[:half])
		g.sendAll(some[half:])
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.time())
	res, err := g.send(ctx, c)
	cancel()
	parts := res.Results()
	if err == nil && len(parts) != len(items) {
		err = fmt.Errorf("propose %d commands: %d results came: %s", len(items), len(parts), res.Void)
	}
	for _, p := range some {
		if p.err = err; err == nil {
			p.result = resultOf(parts[:len(p.items)])
			parts = parts[len(p.items):]
		}
		close(p.done)
	}
}

// resultOf is the result of a proposal of so many commands.
func resultOf(parts []cluster.Result) cluster.Result {
	if len(parts) == 1 {
		return parts[0]
	}
	return cluster.Result{Index: parts[0].Index, Items: parts}
}

// entriesOf makes as few commands of many as fit into entries each.
func entriesOf(items []cluster.Command) (out []cluster.Command) {
	if len(items) == 0 {
		return nil
	}
	c := cluster.Together(items)
	if half := len(items) / 2; half > 0 && (len(items) > cluster.MaxBatch || len(c.Encode()) > consensus.GoodCommand) {
		return append(entriesOf(items[:half]), entriesOf(items[half:])...)
	}
	return []cluster.Command{c}
}

package node

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// An agent that cannot even be killed, as on a mount that never answers, must not keep this node from leading again.
func TestEndOfLeadershipDoesNotHangWithAnAgent(t *testing.T) {
	n := &Node{log: slog.New(slog.NewTextHandler(io.Discard, nil)), events: newJournal("alpha", 10)}
	l := &leading{n: n}
	l.ctx, l.cancel = context.WithCancel(t.Context())
	f := &fencer{l: l, node: "beta", gone: make(chan struct{})}
	killed := make(chan struct{})
	f.kill = func() { close(killed) }
	l.goes.Go(func() {
		<-l.ctx.Done()
		f.stop()
	})
	ended := make(chan struct{})
	go func() { l.end(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * agentEnd):
		t.Fatal("leadership does not end")
	}
	select {
	case <-killed:
	default:
		t.Error("it was not killed")
	}
	if e := n.events.events; len(e) != 1 || e[0].Kind != "fence agent hangs" || !strings.Contains(e[0].Text, "beta") {
		t.Errorf("%+v", e)
	}
}

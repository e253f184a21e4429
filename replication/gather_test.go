package replication

import (
	"testing"

	"hacluster/blockdev"
)

// queued is what waits in the outbox of a peer.
func (n *labNode) queued(t *Tenure, peer string) int {
	t.mu.Lock()
	o := t.peer(peer).outbox
	t.mu.Unlock()
	return o.Queued()
}

// A write with More waits for company, though not for much of it, and goes with what follows or with Push.
func TestWriteWithMoreGoesWithWhatFollows(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	a.connected("b")
	e := ten.Export()
	done := make(chan error, 100)
	n := 0
	submit := func(more bool) {
		req := writeReq(int64(n)*4096, pattern(4096, byte(n)))
		req.More, req.Done = more, func(r *blockdev.Request) { done <- r.Err }
		n++
		e.Submit(req)
	}
	answered := func(k int) {
		t.Helper()
		for range k {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		l.await("the outbox to be empty", func() bool { return a.queued(ten, "b") == 0 })
	}
	submit(true)
	submit(true)
	if q := a.queued(ten, "b"); q > 8192 {
		t.Errorf("%d bytes wait, two writes have 8192", q)
	}
	submit(false)
	answered(3)
	submit(true)
	e.Push()
	answered(1)
	e.Push() // nothing waits
	const many = 8 * gatherBytes / 4096
	for range many {
		submit(true)
		l.await("what waits to be bounded", func() bool { return a.queued(ten, "b") < gatherBytes })
	}
	e.Push()
	answered(many)
	l.same("a", "b")
}

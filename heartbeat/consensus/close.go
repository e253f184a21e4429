package consensus

import (
	"fmt"
	"time"
)

// Close ends this node's part abruptly (TransferLeadership first, where that matters). Calls in progress are answered
// before it returns. After a failure it may be unable to wait for raft, which can hang in its disk, and says so.
func (r *Raft) Close() error {
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	if again {
		return nil
	}
	r.stream.sever()
	if r.failure.Load() == nil {
		// raft leaves the futures of entries that it has committed, but not yet applied, unanswered when it shuts down.
		// Cut off, a leader steps down within its lease, so every call is answered while raft still runs.
		answered := make(chan struct{})
		go func() { r.calls.Wait(); close(answered) }()
		select {
		case <-answered:
		case <-r.failed:
		}
	}
	return r.abandon()
}

// abandon shuts everything down, as far as a hanging disk lets it.
func (r *Raft) abandon() error {
	// When a store call hangs, this goroutine outlives Close, and ends if ever the disk answers.
	ended := make(chan error, 1)
	go func() {
		if r.node != nil {
			_ = r.node.Shutdown().Error()
		}
		_ = r.trans.Close()
		r.store.closed.Store(true)
		ended <- r.close()
	}()
	err, hangs := r.await(ended)
	if hangs {
		err = fmt.Errorf("close raft: a store call has not returned: %w", *r.failure.Load())
	}
	close(r.stop)
	r.leading.end()
	r.wg.Wait()
	return err
}

// await waits for the end of raft; after a failure, for one more DiskDeadline at most.
func (r *Raft) await(ended <-chan error) (err error, hangs bool) {
	select {
	case err := <-ended:
		return err, false
	case <-r.failed:
	}
	t := time.NewTimer(r.diskDeadline())
	defer t.Stop()
	select {
	case err := <-ended:
		return err, false
	case <-t.C:
		return nil, true
	}
}

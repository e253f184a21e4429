package filedev

import "sync"

// blockLocks excludes from each other the writers of parts of one block. The mutex guards the map only; whoever finds
// a block taken waits on its channel.
type blockLocks struct {
	mu    sync.Mutex
	taken map[int64]chan struct{} // closed by unlock
}

func (l *blockLocks) lock(block int64) {
	for {
		l.mu.Lock()
		wait := l.taken[block]
		if wait == nil {
			if l.taken == nil {
				l.taken = map[int64]chan struct{}{}
			}
			l.taken[block] = make(chan struct{})
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		<-wait
	}
}

func (l *blockLocks) unlock(block int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.taken[block])
	delete(l.taken, block)
}

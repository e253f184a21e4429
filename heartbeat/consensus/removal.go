package consensus

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// removal finds out that this node was removed. It belongs to monitor's goroutine, but for the answers.
type removal struct {
	reported bool
	turn     int                   // whom to ask next
	asking   atomic.Bool           // a question is out: one at a time
	told     atomic.Pointer[point] // the answer: removed, though this entry names it
}

// checkRemoved reports, once, that this node is a member no more.
func (r *Raft) checkRemoved(node *raft.Raft) {
	f := node.GetConfiguration()
	if r.removal.reported || f.Error() != nil || len(f.Configuration().Servers) == 0 {
		return
	}
	named := names(f.Configuration(), r.cfg.ID)
	if named {
		r.member.Store(true) // it may have come by a snapshot
	}
	silent := time.Since(node.LastContact()) > removedAfter*r.cfg.Heartbeat && node.State() != raft.Leader
	if !silent || !r.member.Load() {
		return
	}
	if named && !r.wasTold() {
		r.askOne(f.Configuration().Servers)
		return
	}
	r.removal.reported = true
	r.cfg.Logger.Info("this node was removed from the Raft group", "id", r.cfg.ID)
	if r.cfg.OnRemoved != nil {
		r.cfg.OnRemoved()
	}
}

// wasTold tells whether a member said that this node was removed, and nothing has named it since.
func (r *Raft) wasTold() bool {
	told := r.removal.told.Load()
	named, _ := r.standing.own()
	return told != nil && *told == named
}

// askOne asks the next of servers what it knows of this node, without waiting for the answer.
func (r *Raft) askOne(servers []raft.Server) {
	named, member := r.standing.own()
	r.removal.turn++
	to := servers[r.removal.turn%len(servers)]
	if named.index == 0 || to.ID == raft.ServerID(r.cfg.ID) || !r.removal.asking.CompareAndSwap(false, true) {
		return
	}
	r.wg.Go(func() {
		defer r.removal.asking.Store(false)
		v, err := r.trans.askStanding(to, named)
		if err == nil && (v == wasRemoved || v == notMember && member) {
			r.removal.told.Store(&named)
		}
	})
}

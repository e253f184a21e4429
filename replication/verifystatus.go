package replication

import (
	"fmt"
	"time"

	"hacluster/replication/verify"
)

// VerifyState is how a comparison stands.
type VerifyState string

// The states.
const (
	VerifyRunning     VerifyState = "running"
	VerifyDone        VerifyState = "done"        // everything was compared with every member that was left to the end
	VerifyStopped     VerifyState = "stopped"     // somebody stopped it
	VerifyInterrupted VerifyState = "interrupted" // this node is primary no more, or no member is left: begin it again
)

// VerifyStatus is the comparison that runs on this node as primary, or the last one that did. It is forgotten with the
// process.
type VerifyStatus struct {
	State           VerifyState
	Repair          bool
	By              string
	Began, Ended    time.Time // Ended is zero while it runs
	RateBytesPerSec int64
	verify.Result
}

// VerifyStatus tells of it; ok false: there was none since this process began.
func (r *Replica) VerifyStatus() (s VerifyStatus, ok bool) {
	r.verifyMu.Lock()
	defer r.verifyMu.Unlock()
	if r.verify == nil {
		return s, false
	}
	return *r.verify, true
}

func (r *Replica) verifyBegins(req VerifyRequest) {
	r.verifyMu.Lock()
	r.verify = &VerifyStatus{State: VerifyRunning, Repair: req.Repair, By: req.By, Began: time.Now()}
	r.verifyMu.Unlock()
	r.log.Info("verify begins", "repair", req.Repair, "by", req.By)
	r.event("verify began", fmt.Sprintf("asked for by %s, repair %t", req.By, req.Repair))
}

func (r *Replica) verifyMoved(state VerifyState, res verify.Result) {
	r.verifyMu.Lock()
	defer r.verifyMu.Unlock()
	s := r.verify
	s.Result = res
	if secs := time.Since(s.Began).Seconds(); secs > 0 {
		s.RateBytesPerSec = int64(float64(res.Compared) / secs)
	}
	if state != VerifyRunning {
		s.State, s.Ended = state, time.Now()
	}
}

func (r *Replica) verifyEnds(state VerifyState, req VerifyRequest, res verify.Result) {
	text := VerifyText(state, res)
	r.log.Info("verify ended", "state", string(state), "by", req.By, "result", text)
	r.event("verify "+string(state), text)
	if state == VerifyDone {
		r.verified[verifiedRuns].Add(1)
	}
}

// VerifyText says in a line what came of it.
func VerifyText(state VerifyState, res verify.Result) string {
	d, u, m := res.Blocks()
	text := fmt.Sprintf("%d bytes compared, %d blocks differ, %d cannot be read, %d of those repaired", res.Compared, d, u, m)
	if state == VerifyDone && d+u == 0 {
		text = fmt.Sprintf("%d bytes compared, no difference", res.Compared)
	}
	for _, n := range res.Nodes {
		if n.LeftOut != "" {
			text += fmt.Sprintf("; %s was left out from byte %d on: %s", n.Node, n.LeftAt, n.LeftOut)
		}
		if n.Skipped > 0 {
			text += fmt.Sprintf("; %d blocks of %s are marked as different already and were left to the mirror", n.Skipped, n.Node)
		}
	}
	return text
}

// The places of what was counted over all comparisons.
const (
	verifiedDifferent = iota
	verifiedUnreadable
	verifiedRepaired
	verifiedRuns
	numVerified
)

// Verified is what this process counted as primary, over all comparisons: blocks, and comparisons that ended.
type Verified struct{ Different, Unreadable, Repaired, Runs uint64 }

// Verified reads the counts.
func (r *Replica) Verified() Verified {
	return Verified{Different: r.verified[verifiedDifferent].Load(), Unreadable: r.verified[verifiedUnreadable].Load(),
		Repaired: r.verified[verifiedRepaired].Load(), Runs: r.verified[verifiedRuns].Load()}
}

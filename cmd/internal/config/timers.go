package config

import (
	"fmt"
	"time"
)

// The bounds within which an RTO target makes sense: below, elections take longer than leases; above, it is not a
// failover any more.
const (
	MinRTO = time.Second
	MaxRTO = 10 * time.Minute
)

// What the sums allow for work whose duration does not follow from the RTO target.
const (
	driftPercent     = 1                      // by how much two clocks may run apart
	commitTime       = 50 * time.Millisecond  // one Raft commit: an fsync on each voter and a round trip
	promoteTime      = 100 * time.Millisecond // from the committed promotion to the first write
	voteTime         = 30 * time.Millisecond  // one round of votes
	barrierTime      = 20 * time.Millisecond  // a new leader's first commit
	renewalTime      = 20 * time.Millisecond  // one round of R8
	minHeartbeat     = 100 * time.Millisecond // below, a busy machine loses leaders
	minTick          = 5 * time.Millisecond
	spareTime        = 10 * time.Millisecond // by which the second sum holds at least
	leasePercent     = 42
	heartbeatPercent = 28
)

// Timers are all the times of a cluster. They follow from one figure, the RTO target:
//
//	lease          42 % of the target
//	renew          a quarter of the lease: three renewals may be lost, and two thirds are left when a leader dies
//	tick           a fortieth of the lease, 5 ms or more: how late the end of a lease may be noticed
//	heartbeat      28 % of the lease, less where the second sum leaves less room, 100 ms or more; Raft's election time-out
//	               is the same: as long as may be, for a busy machine loses leaders by it
//	leader lease   the heartbeat, the longest that Raft takes: nothing relies on it (R8), it only ends a leader alone
//	drop after     a quarter of the target: a member that does not answer for so long is dropped
//	guard          a quarter of the target: services are down that long after a lease has ended
//
// and two sums must hold (protocol.md, section 5):
//
//	lease x 1.01 + tick + 2 commits + promotion <= RTO target; in async + a quarter of a lease
//	2/3 lease > election + barrier + one renewal, where election = 2 heartbeats + one round of votes
type Timers struct {
	RTO             time.Duration
	Lease           time.Duration
	Renew           time.Duration
	Tick            time.Duration
	RaftHeartbeat   time.Duration
	RaftElection    time.Duration // Raft's own setting; Election is what one takes
	RaftLeaderLease time.Duration
	DropAfter       time.Duration
}

// TimersFor derives the timers, or says with the arithmetic why the target cannot be met.
func TimersFor(rto time.Duration) (Timers, error) {
	if rto > MaxRTO {
		return Timers{}, fmt.Errorf("%v or less is wanted: what takes longer is not a failover", MaxRTO)
	}
	t := derive(rto)
	if err := t.check(); err != nil {
		return Timers{}, fmt.Errorf("%w: %v or more would do", err, MinRTO)
	}
	if rto < MinRTO {
		return Timers{}, fmt.Errorf("%v or more is wanted", MinRTO)
	}
	return t, nil
}

func derive(rto time.Duration) Timers {
	lease := rto * leasePercent / 100
	room := lease*2/3 - voteTime - barrierTime - renewalTime - spareTime // for the two heartbeats of an election
	heartbeat := max(min(lease*heartbeatPercent/100, room/2), minHeartbeat)
	return Timers{
		RTO:             rto,
		Lease:           lease,
		Renew:           lease / 4,
		Tick:            max(lease/40, minTick),
		RaftHeartbeat:   heartbeat,
		RaftElection:    heartbeat,
		RaftLeaderLease: heartbeat,
		DropAfter:       rto / 4,
	}
}

// LeaseFor is the lease that follows from a target, whether that can be met or not.
func LeaseFor(rto time.Duration) time.Duration { return derive(rto).Lease }

func (t Timers) check() error {
	if t.Failover() > t.RTO {
		return fmt.Errorf("%s > RTO target %s", t.sum(), ms(t.RTO))
	}
	if t.FailoverAsync() > t.RTO {
		return fmt.Errorf("%s > RTO target %s", t.ExplainAsync(), ms(t.RTO))
	}
	if left, need := t.Lease*2/3, t.Election()+barrierTime+renewalTime; left <= need {
		return fmt.Errorf("2/3 of the lease %s = %s must be longer than election %s + barrier %s + renewal %s = %s",
			ms(t.Lease), ms(left), ms(t.Election()), ms(barrierTime), ms(renewalTime), ms(need))
	}
	return nil
}

// LeaseWithDrift is how long the leader waits for a lease to end.
func (t Timers) LeaseWithDrift() time.Duration { return t.Lease * (100 + driftPercent) / 100 }

// Failover is the first figure: how long a failover takes at most while the leader lives.
func (t Timers) Failover() time.Duration {
	return t.LeaseWithDrift() + t.Tick + 2*commitTime + promoteTime
}

// Guard is how long a guard may take to have a service down after its lease has ended.
func (t Timers) Guard() time.Duration { return t.RTO / 4 }

// GuardWithDrift is how long another node waits for that.
func (t Timers) GuardWithDrift() time.Duration { return t.Guard() * (100 + driftPercent) / 100 }

// FailoverServices is the first figure of a volume with services: until they are started at the new primary, when the old one
// does not say that it has stopped them.
func (t Timers) FailoverServices() time.Duration { return t.Failover() + t.GuardWithDrift() }

// ExplainServices shows what services add.
func (t Timers) ExplainServices() string {
	return fmt.Sprintf("until services are started, unless the old primary says that it stopped them: %s + guard %s x 1.%02d = %s",
		ms(t.Failover()), ms(t.Guard()), driftPercent, ms(t.FailoverServices()))
}

// FailoverAsync is the first figure in async, where a standby is promoted only when the last primary, which has every
// acknowledged write, was not heard for a quarter of a lease more.
func (t Timers) FailoverAsync() time.Duration { return t.Failover() + t.Lease/4 }

// Election is how long the choice of a new leader takes when no vote is split.
func (t Timers) Election() time.Duration { return 2*t.RaftHeartbeat + voteTime }

// FailoverWithElection is the second figure: when the leader is lost with the primary.
func (t Timers) FailoverWithElection() time.Duration { return t.Failover() + t.Election() }

// Explain shows both figures with their arithmetic, one line each.
func (t Timers) Explain() string {
	return fmt.Sprintf("%s <= RTO target %s\nwhen the leader is lost with the primary: %s + election %s = %s",
		t.sum(), ms(t.RTO), ms(t.Failover()), ms(t.Election()), ms(t.FailoverWithElection()))
}

// ExplainAsync shows what async adds to them.
func (t Timers) ExplainAsync() string {
	return fmt.Sprintf("in async, where the last primary is waited for: %s + 1/4 lease %s = %s", ms(t.Failover()), ms(t.Lease/4), ms(t.FailoverAsync()))
}

func (t Timers) sum() string {
	return fmt.Sprintf("lease %s x 1.%02d + tick %s + 2 commits x %s + promotion %s = %s",
		ms(t.Lease), driftPercent, ms(t.Tick), ms(commitTime), ms(promoteTime), ms(t.Failover()))
}

// ms shows milliseconds, so that the terms of a sum can be added at sight.
func ms(d time.Duration) string {
	return fmt.Sprintf("%gms", float64(d.Round(100*time.Microsecond))/float64(time.Millisecond))
}

package cluster

// In async the others lack what the last primary acknowledged last. What a promotion may lose of it, by what it rests on:
//
//	first start, hand-over       nothing: there is nothing yet; every member had written all before it was given up (R30)
//	unchanged, clean, unmarked   of who served: nothing. Of another: at most the bound, which counted what that one had not
//	                             written; whatever more it had in memory was not acknowledged beyond the bound either. It makes
//	                             durable what it has before it is who served (role)
//	last primary                 nothing that was flushed: it is who served, and a flush is durable there (R20)
//	every member lost its memory nobody is promoted without a person: what a standby has flushed may be older than the bound,
//	                             which counts what is written
//	forced                       what the person was told
//
// Who served may have what the new epoch lacks, so it is held (R19), with every other replica: of several standbys one may
// have more than another. The last primary stays promotable until the new one has it removed (R6): if that one ends before
// it acts, nothing is lost after all. All others leave with the promotion itself: it is the one with the longest prefix that was
// heard (package failover). Nothing is settled: nobody stays but at a hand-over.

// Where some replicas are in async and others not (pair.go), "another" is one in async, and of those that are not nothing is lost; what
// all lost their memory of is gone on with by them, and the ones in async, which may have it, are held, members or not.

// Lag is what the last primary had acknowledged of a volume in async, and another member not yet written.
type Lag struct {
	Bytes int64 `json:"bytes,omitempty"`
	Ms    int64 `json:"ms,omitempty"` // since the oldest of it was acknowledged
	// MaxBytes and MaxMs are the bounds within which it acknowledges.
	MaxBytes int64 `json:"max_bytes"`
	MaxMs    int64 `json:"max_ms"`
}

// atMost is the most that may be lost when this was said last and bound is configured; both may be nil, for not known. The
// primary may have gone on until its bound after it spoke, and one that was just changed may not be in force there yet.
func (l *Lag) atMost(bound *Lag) (bytes, ms int64) {
	if bound == nil {
		return RPOUnknown, RPOUnknown
	}
	bytes, ms = bound.MaxBytes, bound.MaxMs
	if l != nil {
		bytes, ms = max(bytes, l.MaxBytes, l.Bytes), max(ms, l.MaxMs, l.Ms)
	}
	return bytes, ms
}

// whole is the member that has all that was acknowledged, as far as its memory is not lost: who served, if the primary is one that
// may lack some and was not let act yet, otherwise the primary, though it need not be the only one.
func (v *Volume) whole() string {
	if v.HasAsync() && v.Lags(v.Primary) {
		return v.Served
	}
	return v.Primary
}

// leavesBehind reports whether a promotion in async is of one that may lack what was acknowledged.
func (v *Volume) leavesBehind(p *Promote) bool {
	return v.Lags(p.Candidate) && p.Basis != BasisFirst && p.Basis != BasisHandOver && p.Basis != BasisForced
}

// isBefore reports whether a promotion in async has node stay until the new one acts (R6): it is who served, and the new one, which may
// lack something, may have been promoted before and not have acted.
func (v *Volume) isBefore(node string, p *Promote) bool { return v.leavesBehind(p) && node == v.Served }

// hold notes who may hold acknowledged writes that the epoch which begins lacks (R19).
func (v *Volume) hold(p *Promote) {
	switch {
	case p.Basis == BasisForced || v.leavesBehind(p):
		v.Held, v.HeldSince = nil, v.Epoch
		for _, r := range v.Replicas {
			if r.Node != p.Candidate {
				v.Held = append(v.Held, r.Node)
			}
		}
	case !v.HasAsync():
	case p.Basis == BasisLastPrimary || p.Basis == BasisAllLost:
		// It lost what it had not flushed, and what a member wrote back of that is there: one that stays is settled with, and one that
		// leaves is held. Who was held before stays so for that: what was kept aside of it counts.
		v.Held = without(v.Held, p.Candidate)
		// So is one in async that is no member any more, where others are not in async: it left when one of those followed, which had
		// all that it has, and held it in memory. In async alone who follows has made durable what it has, and all others are held then.
		for _, r := range v.Replicas {
			n := r.Node
			if n != p.Candidate && v.Lags(n) && !v.IsHeld(n) && (v.IsMember(n) || v.isMixed()) {
				v.Held, v.HeldSince = append(v.Held, n), v.Epoch
			}
		}
	default:
		v.Held = without(v.Held, p.Candidate) // back before another had acted: there is nothing that it lacks
	}
}

package metrics

var (
	raftLeads     = gauge("raft_leader", "1 while this node leads the Raft group.")
	raftKnown     = gauge("raft_leader_known", "1 while this node knows a leader.")
	raftTerm      = gauge("raft_term", "The newest Raft term that this node knows of.")
	raftLast      = gauge("raft_last_index", "The last entry that is durable here.")
	raftCommit    = gauge("raft_commit_index", "The last entry that this node knows to be committed.")
	raftApplied   = gauge("raft_applied_index", "The last entry that this node has applied.")
	raftContact   = gauge("raft_last_contact_seconds", "How long ago a leader spoke to this node; 0 on the leader.")
	raftWon       = counter("raft_elections_won_total", "How often this node became leader.")
	fenceRequired = gauge("fencing_required", "1 while nobody follows a primary that was neither fenced nor confirmed to be off.")
	fenceAgents   = gauge("fence_agents", "Fence agents that can turn a node off.", "node")
	fenceAttempts = counter("fence_attempts_total", "What was noted of fencing a node: tries to turn it off, and words of people.", "node")
	fenceFailed   = gauge("fence_failed_tries", "Tries in a row in which no level of agents could turn a node off; 0 since one did, or none is wanted.", "node")
	fenceOff      = gauge("fence_off", "1 while the newest process of a node is known to be off.", "node")

	raftCommits = histogram("raft_commit_duration_seconds", "From proposing a command to its outcome, on the leader.")
)

func (e emitter) cluster(s *Snapshot) {
	if len(s.Fences) > 0 {
		e.flag(fenceRequired, s.FencingRequired)
	}
	for _, f := range s.Fences {
		e.set(fenceAgents, float64(f.Agents), f.Node)
		e.set(fenceAttempts, float64(f.Attempts), f.Node)
		e.set(fenceFailed, float64(f.Failed), f.Node)
		e.flag(fenceOff, f.Off, f.Node)
	}
	r := s.Raft
	if r == nil {
		return
	}
	e.flag(raftLeads, r.Leads)
	e.flag(raftKnown, r.LeaderKnown)
	e.set(raftTerm, float64(r.Term))
	e.set(raftLast, float64(r.LastIndex))
	e.set(raftCommit, float64(r.CommitIndex))
	e.set(raftApplied, float64(r.AppliedIndex))
	e.seconds(raftContact, r.LastContact)
	e.set(raftWon, float64(r.Won))
	e.histogram(raftCommits, r.Commits)
}

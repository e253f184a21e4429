package metrics

var (
	raftLeads   = gauge("raft_leader", "1 while this node leads the Raft group.")
	raftKnown   = gauge("raft_leader_known", "1 while this node knows a leader.")
	raftTerm    = gauge("raft_term", "The newest Raft term that this node knows of.")
	raftLast    = gauge("raft_last_index", "The last entry that is durable here.")
	raftCommit  = gauge("raft_commit_index", "The last entry that this node knows to be committed.")
	raftApplied = gauge("raft_applied_index", "The last entry that this node has applied.")
	raftContact = gauge("raft_last_contact_seconds", "How long ago a leader spoke to this node; 0 on the leader.")
	raftWon     = counter("raft_elections_won_total", "How often this node became leader.")
	raftCommits = histogram("raft_commit_duration_seconds", "From proposing a command to its outcome, on the leader.")
)

func (e emitter) cluster(s *Snapshot) {
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

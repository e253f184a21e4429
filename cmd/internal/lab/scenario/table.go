package scenario

import (
	"time"

	"hacluster/cmd/internal/lab/disk"
	"hacluster/cmd/internal/lab/topology"
	"hacluster/cmd/internal/lab/wire"
)

// Table is every scenario there is.
func Table() []Scenario {
	return []Scenario{
		// Crashes.
		{Name: "kill-primary", Covers: "K109", What: "SIGKILL on the primary", CI: true, Fault: Kill(P), Hold: 2 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "kill-standby", Covers: "K109", What: "SIGKILL on the standby", Fault: Kill(S), Hold: 2 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "kill-witness", Covers: "K109 K112", What: "the witness is lost", CI: true, Fault: Kill(W), Hold: 4 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "kill-all", Covers: "K109 K111", What: "all daemons killed at once and started again", CI: true, Fault: Kill(P, S, W), Hold: 3 * time.Second,
			Expect: Expect{Service: Suspends, Changes: 1}},
		{Name: "restart-all", Covers: "K111", What: "all daemons stopped in order and started again", Fault: Stop(S, P, W), Hold: time.Second,
			Expect: Expect{Service: Suspends, Changes: 1}},
		// In the middle of a resync.
		{Name: "resync-kill-target", Covers: "K109", What: "SIGKILL on the standby while it is resynced", CI: true, Phase: Resyncing, Fault: Kill(S), Hold: time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "resync-kill-source", Covers: "K109", What: "SIGKILL on the primary while it resyncs the standby: nobody else may serve", Phase: Resyncing, Fault: Kill(P), Hold: 3 * time.Second,
			Expect: Expect{Service: Suspends, Changes: 1}},
		{Name: "resync-pause-target", Covers: "T84", What: "SIGSTOP on the standby while it is resynced", Phase: Resyncing, Fault: Pause(S), Hold: 3 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "resync-cut", Covers: "X101", What: "P and S do not reach each other while the standby is resynced", Phase: Resyncing, Fault: Cut("", P, S), Hold: 3 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "resync-power-target", Covers: "K110", What: "the standby loses power while it is resynced", Disks: true, Phase: Resyncing, Fault: PowerCut(disk.Torn, S), Hold: time.Second,
			Expect: Expect{Service: GoesOn}},
		// While the role moves.
		{Name: "switchover-kill-old", Covers: "K109", What: "SIGKILL on the primary while it hands over", Fault: Switchover(Kill(P)), Hold: 2 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "switchover-kill-new", Covers: "K109", What: "SIGKILL on the standby while it is handed the role", Fault: Switchover(Kill(S)), Hold: 2 * time.Second,
			Expect: Expect{Service: Survives, Changes: 2}},
		{Name: "switchover-cut", Covers: "X101", What: "P and S are cut while the role moves", Fault: Switchover(Cut("", P, S)), Hold: 4 * time.Second,
			Expect: Expect{Service: Survives, Changes: 2}},
		{Name: "promoted-kill", Covers: "K109", What: "the new primary is killed as soon as it is promoted, the old one comes back", Fault: Promoting(Kill(P), Kill(S)), Hold: time.Second,
			Expect: Expect{Service: Suspends, Changes: 2}},
		{Name: "promoted-pause", Covers: "T83", What: "the primary is paused, and the new one as soon as it is promoted", Fault: Promoting(Pause(P), Pause(S)), Hold: 3 * time.Second,
			Expect: Expect{Service: Suspends, Changes: 2}},
		// Pauses.
		{Name: "pause-primary", Covers: "T83", What: "SIGSTOP on the primary for many leases, then SIGCONT", CI: true, Fault: Pause(P), Hold: 8 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "pause-primary-30s", Covers: "T83", What: "the same for 30 s", Fault: Pause(P), Hold: 30 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "pause-primary-briefly", Covers: "T83", What: "SIGSTOP on the primary for less than its lease", RTO: "8s", Fault: Pause(P), Hold: 300 * time.Millisecond,
			Expect: Expect{Service: Waits}},
		{Name: "pause-standby", Covers: "T84", What: "SIGSTOP on the standby", Fault: Pause(S), Hold: 5 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "pause-witness", Covers: "T85", What: "SIGSTOP on the witness", Fault: Pause(W), Hold: 5 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "pause-all", Covers: "T87", What: "SIGSTOP on all three", Fault: Pause(P, S, W), Hold: 4 * time.Second,
			Expect: Expect{Service: Suspends, Changes: 1}},
		{Name: "awakened-alone", Covers: "T83", What: "SIGCONT on a primary that was succeeded while it was paused, and reaches nobody but clients: its lease alone stops it",
			Fault: Awakened(Cut("", P, S, W)), Hold: 3 * time.Second, Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "awakened-standby", Covers: "T83", What: "the same, and it reaches its successor but not the witness: what it had sent is refused",
			Fault: Awakened(Cut("", P, W)), Hold: 3 * time.Second, Expect: Expect{Service: Moves, Changes: 1}},
		// Power.
		{Name: "power-primary", Covers: "K110", What: "the primary loses power, unflushed writes torn", CI: true, Disks: true, Fault: PowerCut(disk.Torn, P), Hold: 2 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "power-standby", Covers: "K110", What: "the standby loses power, unflushed writes by the sector", Disks: true, Fault: PowerCut(disk.Random, S), Hold: 2 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "power-both", Covers: "K110 K111", What: "both data nodes lose power under writes with FUA", Disks: true, FUA: true, Fault: PowerCut(disk.Drop, P, S), Hold: 2 * time.Second,
			Expect: Expect{Service: Suspends, Changes: 1}},
		{Name: "power-all", Covers: "K110 K111", What: "all lose power under writes with FUA", CI: true, Disks: true, FUA: true, Fault: PowerCut(disk.Drop, P, S, W), Hold: 2 * time.Second,
			Expect: Expect{Service: Suspends, Changes: 1}},
		{Name: "power-all-standby", Covers: "K110 K111", What: "all lose power under writes with FUA, the primary stays off, the standby is promoted by force: it has them all",
			Disks: true, FUA: true, Fault: PowerCutForced(disk.Drop), Hold: time.Second,
			Expect: Expect{Service: Suspends, Changes: 1}},
		// Disks.
		{Name: "disk-read-primary", Covers: "D88", What: "the primary's disk fails reads", Disks: true, Fault: Disk(disk.Fault{Kind: disk.EIO, Op: disk.Read}, topology.DiskVolume, P), Hold: 3 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "disk-write-primary", Covers: "D89", What: "the primary's disk fails writes", CI: true, Disks: true, Fault: Disk(disk.Fault{Kind: disk.EIO, Op: disk.Write}, topology.DiskVolume, P), Hold: 3 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "disk-flush-primary", Covers: "D90", What: "the primary's disk fails flushes", Disks: true, FUA: true, Fault: Disk(disk.Fault{Kind: disk.EIO, Op: disk.Flush}, topology.DiskVolume, P), Hold: 3 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "disk-write-standby", Covers: "D91", What: "the standby's disk fails writes", Disks: true, Fault: Disk(disk.Fault{Kind: disk.EIO, Op: disk.Write}, topology.DiskVolume, S), Hold: 3 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "disk-full-standby", Covers: "D91", What: "the standby's disk is full", Disks: true, Fault: Disk(disk.Fault{Kind: disk.ENOSPC, Op: disk.Write}, topology.DiskVolume, S), Hold: 3 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "disk-full-raft", Covers: "D92", What: "no space for the Raft log of the primary", Disks: true, Fault: Disk(disk.Fault{Kind: disk.ENOSPC, Op: disk.Write}, topology.DiskRaft, P), Hold: 3 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "disk-slow-standby", Covers: "D93", What: "each write of the standby takes 100 ms longer", Disks: true, Fault: Disk(disk.Fault{Kind: disk.Slow, Op: disk.Write, Delay: 100 * time.Millisecond}, topology.DiskVolume, S), Hold: 4 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "disk-slow-primary", Covers: "D93", What: "each write of the primary takes 100 ms longer", Disks: true, Fault: Disk(disk.Fault{Kind: disk.Slow, Op: disk.Write, Delay: 100 * time.Millisecond}, topology.DiskVolume, P), Hold: 4 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "disk-stall-primary", Covers: "D94", What: "the primary's disk hangs", CI: true, Disks: true, Fault: Disk(disk.Fault{Kind: disk.Hang}, topology.DiskVolume, P), Hold: 3 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1, Within: 30 * time.Second}},
		{Name: "disk-stall-standby", Covers: "D94", What: "the standby's disk hangs", Disks: true, Fault: Disk(disk.Fault{Kind: disk.Hang}, topology.DiskVolume, S), Hold: 3 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "disk-stall-raft", Covers: "D94", What: "the disk of the primary's Raft log hangs", CI: true, Disks: true, Fault: Disk(disk.Fault{Kind: disk.Hang}, topology.DiskRaft, P), Hold: 3 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1, Within: 30 * time.Second}},
		// Cuts.
		{Name: "cut-primary", Covers: "X98", What: "P | S W: the primary alone", CI: true, Fault: Cut("", P, S, W), Hold: 5 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "cut-primary-led", Covers: "X98", What: "the same while the witness leads: it promotes as soon as the lease that it granted has run out", Phase: LedByWitness, Fault: Cut("", P, S, W), Hold: 5 * time.Second,
			Expect: Expect{Service: Moves, Changes: 1}},
		{Name: "cut-standby", Covers: "X99", What: "S | P W: the standby alone", CI: true, Fault: Cut("", S, P, W), Hold: 5 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "cut-witness", Covers: "X100", What: "W | P S: the witness alone", Fault: Cut("", W, P, S), Hold: 5 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "cut-primary-standby", Covers: "X101", What: "P and S do not reach each other, both reach W", CI: true, Fault: Cut("", P, S), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "cut-primary-witness", Covers: "X101", What: "P and W do not reach each other, both reach S", Fault: Cut("", P, W), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "cut-replication", Covers: "X107", What: "the replication network between P and S is cut, the heartbeats are not", Fault: Cut(topology.Replication, P, S), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "cut-heartbeat", Covers: "X107", What: "one heartbeat network of two is cut", Fault: Cut(topology.Heartbeat1, P, S, W), Hold: 5 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "cut-heartbeats", Covers: "X107", What: "no gossip reaches the primary, block data and Raft do", Fault: Lose(func(r *Run) (all []topology.Rule) {
			for _, n := range []string{r.Standby(), r.Witness()} {
				all = append(all, topology.Cut(r.Primary(), n, topology.Heartbeat1)...)
				all = append(all, topology.Cut(r.Primary(), n, topology.Heartbeat2)...)
			}
			return all
		}), Hold: 5 * time.Second, Expect: Expect{Service: GoesOn}},
		{Name: "cut-clients", Covers: "X106", What: "the clients do not reach the primary", Fault: Cut("", C, P), Hold: 5 * time.Second,
			Expect: Expect{Service: Unseen}},
		{Name: "oneway-primary-standby", Covers: "X102", What: "what P sends does not reach S", CI: true, Fault: OneWay("", P, S), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "oneway-standby-primary", Covers: "X102", What: "what S sends does not reach P", Fault: OneWay("", S, P), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "oneway-primary-witness", Covers: "X102", What: "what P sends does not reach W", Fault: OneWay("", P, W), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "oneway-witness-primary", Covers: "X102", What: "what W sends does not reach P", Fault: OneWay("", W, P), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 1}},
		// Bad cables.
		{Name: "flap", Covers: "X103", What: "P-S: 1 s cut, 1 s healed, in turn", CI: true, Fault: Flap(time.Second, time.Second, P, S), Hold: 12 * time.Second,
			Expect: Expect{Service: Survives, Changes: 2}},
		{Name: "flap-5min", Covers: "X103", What: "the same for five minutes", Fault: Flap(time.Second, time.Second, P, S), Hold: 5 * time.Minute,
			Expect: Expect{Service: Survives, Changes: 4}},
		{Name: "loss-5", Covers: "X104", What: "5 % of all packets are lost", Fault: Lossy(5), Hold: 6 * time.Second,
			Expect: Expect{Service: Survives, Changes: 2}},
		{Name: "loss-30", Covers: "X104", What: "30 % of all packets are lost", RTO: "10s", Fault: Lossy(30), Hold: 10 * time.Second,
			Expect: Expect{Service: Survives, Changes: 2, Within: 30 * time.Second}},
		{Name: "slow-link", Covers: "X104", What: "the primary sends 2 Mbit/s into the replication network", CI: true, Fault: Slow("2mbit", P), Hold: 6 * time.Second,
			Expect: Expect{Service: GoesOn}},
		{Name: "delay-50ms", Covers: "X104", What: "the replication cable of P delays by 50 ms, both ways", Hold: 6 * time.Second,
			Fault:  Rewire(wire.Config{Delay: 50 * time.Millisecond}, func(s wire.Stats) uint64 { return s.Delayed }, P),
			Expect: Expect{Service: Survives, Changes: 1}},
		{Name: "delay-500ms", Covers: "X104", What: "the same by 500 ms, in a cluster whose target allows for that", RTO: "20s", Hold: 12 * time.Second,
			Fault:  Rewire(wire.Config{Delay: 500 * time.Millisecond}, func(s wire.Stats) uint64 { return s.Delayed }, P),
			Expect: Expect{Service: GoesOn, Within: 30 * time.Second}},
		{Name: "reorder", Covers: "X105", What: "a quarter of the frames overtake the others, a tenth arrive twice", Hold: 6 * time.Second,
			Fault:  Rewire(wire.Config{Delay: 5 * time.Millisecond, Reorder: 25, Double: 10}, func(s wire.Stats) uint64 { return min(s.Reordered, s.Doubled) }, P),
			Expect: Expect{Service: GoesOn}},
		{Name: "black-hole", Covers: "X108", What: "small packets pass between P and S, long ones are lost", Hold: 6 * time.Second,
			Fault: Lose(func(r *Run) []topology.Rule {
				return []topology.Rule{{From: r.Primary(), To: r.Standby(), Network: topology.Replication, Percent: 100, Longer: 1000}}
			}),
			Expect: Expect{Service: GoesOn}},
	}
}

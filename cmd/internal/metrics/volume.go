package metrics

var (
	volumeSize     = gauge("volume_size_bytes", "Size of the volume.", "volume")
	volumeEpoch    = gauge("volume_epoch", "Number of the primary's tenure; the same on every node.", "volume")
	volumePrimary  = gauge("volume_primary", "1 for the node that is primary, 0 for the other replicas; the same on every node.", "volume", "replica")
	volumeMember   = gauge("volume_in_sync", "1 when the replica is a member of the in-sync set, else 0; the same on every node.", "volume", "replica")
	volumeDrops    = counter("volume_member_drops_total", "Members dropped from the in-sync set since the volume exists; the same on every node.", "volume")
	volumeAdmits   = counter("volume_member_admissions_total", "Members admitted to the in-sync set since the volume exists; the same on every node.", "volume")
	volumePromotes = counter("volume_promotions_total", "Promotions since the volume exists, by what they rested on; the same on every node.", "volume", "basis")

	failoverAt     = gauge("last_failover_timestamp_seconds", "When the newest failover of the volume was decided, Unix time; the same on every node.", "volume")
	failoverRTO    = gauge("last_failover_rto_seconds", "From the old primary's last sign of life to the first acknowledged write, in the newest failover; the same on every node.", "volume")
	failoverTarget = gauge("last_failover_rto_target_seconds", "The RTO target at the newest failover; the same on every node.", "volume")
	failoverRPO    = gauge("last_failover_rpo_bytes", "The most that the newest failover may have lost of what clients were told is done; absent when that is not known; the same on every node.", "volume")
	failoverRPOAge = gauge("last_failover_rpo_seconds", "The most time from the first to the last acknowledgement that the newest failover may have lost; 0 when nothing was lost, or by force; absent when that is not known; the same on every node.", "volume")
	failoverStage  = gauge("last_failover_stage_seconds", "How long each stage of the newest failover took; the same on every node.", "volume", "stage")

	ioOps       = counter("io_operations_total", "Operations that clients submitted to this node as primary, over all its tenures.", "volume", "op")
	ioBytes     = counter("io_bytes_total", "Bytes of operations that clients submitted to this node as primary, over all its tenures.", "volume", "op")
	ioErrors    = counter("io_errors_total", "Operations of clients that were answered with an error.", "volume")
	ioLatency   = histogram("io_stage_duration_seconds", "How long stages took on this node as primary. All flushes are timed, of reads and writes one in eight.", "volume", "stage")
	ackLatency  = histogram("peer_ack_duration_seconds", "From queueing a write for a standby to its acknowledgement; one at a time is timed.", "volume", "replica")
	sumErrors   = counter("checksum_errors_total", "Entries of a stream that this standby refused because their checksum did not fit.", "volume")
	diskErrors  = counter("disk_errors_total", "Failed or stalled operations of this node's backing.", "volume")
	readsAt     = counter("reads_by_standby_total", "Reads of clients of this primary that a standby answered (read = balance). They are part of io_operations_total.", "volume", "node")
	readBytesAt = counter("read_bytes_by_standby_total", "Bytes of those.", "volume", "node")
	readRepairs = counter("read_repairs_total", "Ranges that this node's disk could not read as primary, read at a member and written anew.", "volume")
	diskFailed  = gauge("backing_failed", "1 when a write or flush of this node's backing failed, and it has not been resynced since.", "volume")
	diskStalled = gauge("backing_stalled", "1 while an operation of this node's backing is outstanding past its deadline.", "volume")
	diskBroken  = gauge("backing_inconsistent", "1 while a resync has begun to overwrite this node's backing and has not ended.", "volume")

	rescueImages = gauge("rescue_images", "Rescue images of this node's replica: what a promotion by force left behind, until a person deletes it.", "volume")
	rescueBytes  = gauge("rescue_bytes", "Bytes of their files.", "volume")

	verifyDifferent  = counter("verify_different_blocks_total", "Blocks of 4096 bytes that comparisons by this node as primary found to differ on another replica.", "volume")
	verifyUnreadable = counter("verify_unreadable_blocks_total", "Blocks of 4096 bytes that comparisons by this node as primary found unreadable, on any replica.", "volume")
	verifyRepaired   = counter("verify_repaired_blocks_total", "Blocks of those that were repaired.", "volume")
	verifyRuns       = counter("verify_runs_total", "Comparisons by this node as primary that came to their end.", "volume")

	suspended   = gauge("volume_suspended", "1 while this node is primary and may not answer, for want of a lease.", "volume")
	connected   = gauge("replica_connected", "1 while this primary has a stream to the standby.", "volume", "replica")
	lagBytes    = gauge("replica_lag_bytes", "Bytes sent or queued to the standby and not acknowledged; in async those that clients were told are written and the standby lacks, which a failover would lose.", "volume", "replica")
	lagSeconds  = gauge("replica_lag_seconds", "Age of the oldest entry that the standby has not acknowledged; in async since its client was told.", "volume", "replica")
	boundBytes  = gauge("volume_lag_bound_bytes", "The most that a standby may lack, in async.", "volume")
	boundTime   = gauge("volume_lag_bound_seconds", "When a standby has lacked what a client was told is written for so long, nothing more is acknowledged, in async.", "volume")
	slowed      = gauge("volume_writers_slowed", "1 while a standby is behind by half of the bound or more and writers are slowed, in async.", "volume")
	heldUp      = gauge("volume_writers_held", "1 while a write has waited for a second or more for a standby that is behind, in async.", "volume")
	spoolBytes  = gauge("volume_spool_bytes", "Bytes of what standbys lack that lie in the primary's spool, in async.", "volume")
	spoolFailed = gauge("volume_spool_failed", "1 while the spool takes nothing, and what standbys lack stays in memory, in async.", "volume")
	dirtyBytes  = gauge("replica_dirty_bytes", "What a resync of the standby would have to look at.", "volume", "replica")
	resyncing   = gauge("replica_resyncing", "1 while a resync to the standby runs.", "volume", "replica")
	resyncDone  = gauge("replica_resync_done_bytes", "How much of the volume the running resync has looked at.", "volume", "replica")
	resyncTotal = gauge("replica_resync_bytes", "How much the running resync has to look at in all.", "volume", "replica")
	resyncRate  = gauge("replica_resync_bytes_per_second", "Speed of the running resync.", "volume", "replica")
)

func (e emitter) volume(v *Volume) {
	e.set(volumeSize, float64(v.Size), v.Name)
	e.set(volumeEpoch, float64(v.Epoch), v.Name)
	e.set(volumeDrops, float64(v.Drops), v.Name)
	e.set(volumeAdmits, float64(v.Admissions), v.Name)
	for basis, n := range v.Promotions {
		e.set(volumePromotes, float64(n), v.Name, basis)
	}
	for _, r := range v.Replicas {
		e.flag(volumePrimary, r.Node == v.Primary, v.Name, r.Node)
		e.flag(volumeMember, r.Member, v.Name, r.Node)
	}
	if f := v.LastFailover; f != nil {
		e.set(failoverAt, float64(f.At.UnixMilli())/1000, v.Name)
		e.seconds(failoverRTO, f.RTO, v.Name)
		e.seconds(failoverTarget, f.Target, v.Name)
		if f.RPOBytes >= 0 {
			e.set(failoverRPO, float64(f.RPOBytes), v.Name)
			e.seconds(failoverRPOAge, f.RPO, v.Name)
		}
		for stage, d := range f.Stages {
			e.seconds(failoverStage, d, v.Name, stage)
		}
	}
	e.local(v)
	e.serving(v)
}

func (e emitter) local(v *Volume) {
	l := v.Local
	if l == nil {
		return
	}
	for op, n := range l.Ops {
		e.set(ioOps, float64(n), v.Name, op)
	}
	for op, n := range l.Bytes {
		e.set(ioBytes, float64(n), v.Name, op)
	}
	e.set(ioErrors, float64(l.Errors), v.Name)
	e.set(sumErrors, float64(l.ChecksumErrors), v.Name)
	e.set(diskErrors, float64(l.DiskErrors), v.Name)
	e.set(readRepairs, float64(l.ReadRepairs), v.Name)
	e.flag(diskFailed, l.Failed, v.Name)
	e.flag(diskStalled, l.Stalled, v.Name)
	e.flag(diskBroken, l.Inconsistent, v.Name)
	e.set(rescueImages, float64(l.RescueImages), v.Name)
	e.set(rescueBytes, float64(l.RescueBytes), v.Name)
	e.set(verifyDifferent, float64(l.Verified.Different), v.Name)
	e.set(verifyUnreadable, float64(l.Verified.Unreadable), v.Name)
	e.set(verifyRepaired, float64(l.Verified.Repaired), v.Name)
	e.set(verifyRuns, float64(l.Verified.Runs), v.Name)
	for stage, h := range l.Stages {
		e.histogram(ioLatency, h, v.Name, stage)
	}
	for peer, r := range l.ReadsAt {
		e.set(readsAt, float64(r.Ops), v.Name, peer)
		e.set(readBytesAt, float64(r.Bytes), v.Name, peer)
	}
	for peer, h := range l.Acks {
		e.histogram(ackLatency, h, v.Name, peer)
	}
}

func (e emitter) serving(v *Volume) {
	if v.Local != nil {
		e.flag(suspended, v.Serving != nil && v.Serving.Suspended, v.Name)
	}
	if v.Serving == nil {
		return
	}
	if a := v.Serving.Async; a != nil {
		e.set(boundBytes, float64(a.MaxLagBytes), v.Name)
		e.seconds(boundTime, a.MaxLag, v.Name)
		e.flag(slowed, a.Slowed, v.Name)
		e.flag(heldUp, a.Held, v.Name)
		e.set(spoolBytes, float64(a.SpoolBytes), v.Name)
		e.flag(spoolFailed, a.SpoolFailed, v.Name)
	}
	for _, p := range v.Serving.Peers {
		e.flag(connected, p.Connected, v.Name, p.Node)
		e.set(lagBytes, float64(p.LagBytes), v.Name, p.Node)
		e.seconds(lagSeconds, p.Lag, v.Name, p.Node)
		e.set(dirtyBytes, float64(p.DirtyBytes), v.Name, p.Node)
		e.flag(resyncing, p.Resyncing, v.Name, p.Node)
		if p.Resyncing {
			e.set(resyncDone, float64(p.ResyncDone), v.Name, p.Node)
			e.set(resyncTotal, float64(p.ResyncTotal), v.Name, p.Node)
			e.set(resyncRate, float64(p.ResyncRate), v.Name, p.Node)
		}
	}
}

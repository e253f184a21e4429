// Package sim is the model of the mirroring protocol (protocol.md, section 6). It has tests only.
//
// One goroutine, one seeded source of chance and one queue of events in virtual time drive the packages that decide:
// heartbeat/cluster, heartbeat/failover, heartbeat/fence, replication/role, replication/primary, replication/standby, replication/order,
// replication/resync and blockdev/undo. Around them is what they live in: machines with disks and a witness, an honest Raft made
// of messages, a network, clients, and everything that can go wrong. Mostly there are two replicas and a witness; of forty seeds eight
// play three replicas without a witness, and two four with one (shape_test.go). The rules are checked after every step; a seed
// replays exactly. The model decides nothing itself: where this text says "then", the daemon must do the same.
//
//	go test ./cmd/internal/sim                                     2,000 seeds
//	go test ./cmd/internal/sim -long                               20,000 (or HACLUSTER_LONG=1)
//	go test ./cmd/internal/sim -run TestModel -seed=N -v           one seed, with its trace
//	go test ./cmd/internal/sim -replicas=3                         every seed with so many, in sync and semisync
//	HACLUSTER_MUTATIONS=1 go test ./cmd/internal/sim -run TestMut  broken rules, each of which must be noticed
//
// # Wiring: control
//
//   - A data node asks for its lease every quarter of one, numbered by Holder.Next directly before sending, with its
//     reports; it asks on while it stops, until it has given up.
//   - Request, give-up and proposal go to the Raft leader as the node knows it, or by way of another node; whoever gets
//     one and does not lead hands it on.
//   - A new failover.Leader is made at each election won, at that moment; it is told Applied after each step of the log,
//     ready once the barrier of its own term is applied, and Tick every twentieth of a lease. It is dropped as soon as
//     the node leads no more. An answer to a round is given to the Leader object that asked and to no other: the
//     numbers of rounds begin anew in each.
//   - Ask: every other node answers with its Raft term, read after the question arrived, and its reports; the leader's
//     own go in by Answer as well. CheckSelf: Confirm at once, with the own term and role. A node that is noting a disk
//     failure answers nothing until the note is stored.
//   - Propose of a Leader is appended only by the node while it leads; if it cannot be, Leader.Retry. A Drop is appended
//     only if Leader.MayDrop says so at that moment. The leader's word on a proposal (Result.Volume) is taken for as
//     true as the own log when it is newer.
//
// # Wiring: a replica
//
//   - Each newer record (own log, leader's word) goes to Receiver.Fence, closes streams of older epochs, goes to
//     Core.Set, and then role.Next is asked until it wants nothing. Busy is the writes and flushes of own sessions on
//     the device, past ones too, plus Receiver.Outstanding.
//   - Stop: clients are cut off without an answer, the stream is closed, the Core is dropped; what is on the device ends
//     and counts as busy until then. StoreEpoch: stored, then Receiver.Stored. Propose: again every 100 ms. GiveUp:
//     Holder.GiveUp, then told to the leader until the record moves or a grant comes. Flush: the device is flushed, which counts
//     as busy; when it fails that is noted.
//   - Serve: the clean-stop mark is removed durably first. A replica that is marked failed and is to serve all the same
//     was promoted by a person's word: its whole content is read and written again and flushed before the mark goes and
//     it serves, for no flush would make durable what a failed one dropped.
//   - The report's Failed is true from the moment of the failure; nothing is answered, to clients, primaries or the
//     leader, before it is stored.
//   - A clean stop: as primary hand over and wait two leases for a successor; then tell the primary on the stream that is
//     open, whose Core.Leaving drops us when a write waits; cut off, wait for the device, flush, store the mark with
//     incarnation and process, exit. Failed or in pieces: no mark.
//
// # Wiring: a primary
//
//   - An operation is admitted, and an answer leaves, only if Holder.Valid(volume, epoch, now) at that very moment; else
//     it waits, in order. Operations of a connection that is closed are discarded if they were not admitted.
//   - Reads go to the local backing and then to Core.ReadDone. What could not be read goes to Core.ReadFailed with a mend for
//     each block; Fetch asks the member on its stream, which answers if MayRead after reading. A void mend writes nothing.
//   - An operation starts on the backing when the Core says StartLocal, and is not touched after Release; its memory is
//     used again. Begin and Send go to the connection in the order of the actions; what finds no connection is dropped.
//   - Disconnect closes the connection; the end of any connection, ours or not, ends in Core.Down with its stream, and
//     the next one is opened after a pause with a number from Core.NextStream.
//   - Compare: TakeChunk until it gives none, some at a time; each chunk's digests are asked for on the stream itself,
//     our own part is read meanwhile, when both are there Compared, with what was read as the content of the copies. If
//     Core.CopyAll, the whole chunk is copied.
//   - Core.Tick every sixth of DropAfter. Without a lease for the suspend limit the clients' connections are closed.
//   - Hand-over: Core.Approach each 5 ms until it is false, which is at once but in async; then no admission, Core.Drain, at Drained one flush of our own through the Core, then Holder.GiveUp with
//     Holder.Term, then the leader is told. A hand-over that does not drain in time is taken back by Core.Resume; one
//     that was given up, by a grant asked for afterwards, and by nothing else.
//   - In async Complete comes before the operation was sent: its content stays until Release. LocalDone is told the time.
//   - DiskFailed: note first. Then, while another member is connected and not Core.SendsOn, give up with Failed. Alone, errors complete. HandOn notes
//     nothing: give up with Failed while HandsOn says so. Reread: the read goes to the local backing once more.
//
// # Wiring: a standby
//
//   - A Hello waits while role.MayAnswer is false, while an epoch or a failure is being stored, and for Store and Wait
//     of Receiver.Hello, half a second at most. The clean-stop mark is removed before the greeting. Acceptance closes
//     the connection of the stream before.
//   - Entries are taken in order; while NeedsMark, the first that changes a block waits, and all behind it, until the
//     replica is flushed, its undo area or rescue image is there durably, the mark is stored, and Marked(true) told. Then
//     order.Queue. A flush is a barrier, and in async a fence too, as a durable write is.
//   - NeedsUndo, asked when an entry is taken: the entry starts when its blocks are logged. If they cannot be, the area is
//     discarded first, and Rewinds(false) told; one that is held overwrites nothing more.
//   - Opened in pieces with a live area: Rewinds(true). Opened whole: an area is discarded, an image kept.
//   - Promoted in pieces, before it serves: all that the area has is written, then flushed, then inconsistent=false stored,
//     then the area discarded. It counts as busy, and ends early when a newer epoch is there.
//   - An entry that returned: Returned, and the prefix is acknowledged if MayAck. One that failed: note, then refuse,
//     then Failed; nothing of that stream is acknowledged afterwards.
//   - The closing entry: flush; if not Broken and still MayAck, store inconsistent=false and failed=false in one
//     update, end the area, Marked(false), Returned.
//
// # Async
//
// A quarter of the seeds each plays semisync and async, with bounds that writers feel. In async a read or an acknowledgement is no
// promise that every member has it. Instead: with each write that a client is told of, no member lacks more of what was told
// than the bound, in bytes and in the primary's time; nothing is said in an epoch behind the committed one; on a standby
// nothing starts before what was to be durable before it; who is promoted without having served begins with a prefix of the
// order of admission, of several standbys that were heard the longest one, lacks no more than the bound, and the record of the failover says no less; each replica that has what it
// lacks is held, so the rules of rescue count for it; anybody else begins with all that was told.
// A third of these seeds has a spool, which is slow, fails and loses data; what is in it only is sent to nobody.
//
// # Fencing
//
// In two seeds of eleven there are fence agents, and in one of these fencing is required. The leader carries out what the failover.Leader
// asks for by a fence.Attempt of its own for each node, which goes with it; each Note is a proposal, and its outcome Noted. Agents do
// what they are asked, fail, hang and do it late or never, or lie, some so that their status tells. Who was turned off comes back after
// a while; a person may turn off what cannot be fenced, and say so. Nobody is turned off before it is committed that this begins; what
// counts as off is off unless an agent lied; nobody follows who may still act, nor one that has answered since it was said to be off.
//
// # Sites
//
// In three seeds of 16 the last replica is at another site: it is promoted only if a person named it in that epoch, and so are the others
// after that. In the end a person names one that could follow.
//
// # Modes
//
// In some seeds with more than two replicas each has a mode of its own. What is said above of async counts for members whose mode towards
// the primary is async, and what is said of sync for the others; none of the former is promoted while one of the latter was heard.
//
// Some seeds have an operator who changes the mode again and again, also before the last change is in force. When Barrier asks for it a
// flush of the daemon's own is admitted, then AdmitBarrier told. Each acknowledgement is judged by the mode that the record has at that
// moment, or by the stronger one by which its primary decided it. With the entry that puts a mode in force every member has what
// was told and acknowledged before, and durably what was flushed; what a stronger mode acknowledged is never lost in async. A
// change is lost with no promotion, and is in force at the end.
//
// # Replicas that come and go
//
// In some runs a person has replicas removed and added, one after the other, at any moment; a primary is handed over before. Join has
// the session connect to a replica, Part end the connection for good. A machine whose superblock is not that of its replica by the
// record, once its log is not older than its process, takes part in nothing, and begins with a new superblock, in pieces, when it has
// one again; the disk has what was there before. A number is given once; no two present ones share a bit; nobody goes who is a member
// or held. In the end all machines have a replica again.
//
// # What the model leaves out
//
// Generations, more than one volume, torn superblocks, a process that is killed between an error of the kernel and its
// note, checksums. Raft's own snapshots and storage are tested in heartbeat/consensus.
package sim

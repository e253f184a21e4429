// Package ring3 runs whole nodes in virtual time: the daemon's own code from its port to its disk, three nodes and their
// clients in one process, where an hour passes in seconds. It has tests only.
//
// Real are: package node and all that it wires (Raft with its log in a folder of the machine, gossip, leases, control
// over gRPC, replication, NBD). A test's own are, by way of node.Env: the clock, the boot id, the connections, the
// gossip's packets and the disks. The load and the judgement are the laboratory's (lab/client, lab/history).
//
//	network_test.go  connections that can be cut, one way too, slowed and reset, as TCP would be
//	disk_test.go     disks that fail, hang, and lose power
//	machine_test.go  one machine: start, stop, crash of the process, loss of power
//	cluster_test.go  three of them, and when they are healthy      faults_test.go  what befalls them
//	hour_test.go     the run and its judgement                     scenes_test.go  single schedules, by name
//	diskfaults_test.go  each fault of a disk, on each side, and what comes of it
//
// A crash of a process: at a moment when every goroutine waits, data_dir and disk are cloned; the old node is cut off
// from everything and left to end by itself, the new one goes on with the clones. So a crash hits between two steps
// that each wait for time to pass (the disks and the wires have delays), never within one: for crashes between two
// system calls there are the fail points. A loss of power takes what the disk had not flushed, in torn sectors, and
// changes the boot id; data_dir loses nothing, for that, too, the fail points are better. With an odd seed every write
// is durable before it is acknowledged, so power may go anywhere at any time; with an even one nothing is ever flushed,
// and power goes only where another replica has it all.
//
// What a machine cannot have here: a process that is stopped while its clock goes on.
//
// A run does not repeat exactly: Raft draws time-outs, and goroutines of one instant run in any order. The seed gives
// the schedule of faults again. What is found here is to be replayed as a scene, or in the model (package sim).
//
//	go test ./cmd/internal/ring3                     a part of an hour, bounded in real time
//	make ring3 HOURS=10 SEED=7                       longer; seed 7's schedule of faults
//	HACLUSTER_RING3_LOG=/tmp/x make ring3            all nodes' logs, in virtual time, in that file
package ring3

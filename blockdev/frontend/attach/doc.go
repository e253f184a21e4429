// Package attach makes a volume a block device of its primary's machine: /dev/hacluster/NAME, a loop device with direct I/O over
// the one file of a FUSE file system.
//
//	program --> /dev/hacluster/NAME --> /dev/loopN --> FUSE --> Server ==NBD, unix socket==> haclusterd
//
// The Server is a process of its own, which the daemon starts and which outlives it: while no daemon serves, requests are held, and
// their users wait. They go on where Hold finds that this is safe, and end with an error where it is not. A Server is never taken
// over; it is asked over a control socket what it does, to let go, or to give up (Place).
//
//	tenure.go   what a connection says of who serves it     hold.go    pure: may what is held go on there?
//	decide.go   pure: what the daemon does about a device   server.go  the process     control.go  its socket
//	place.go    where things lie, starting a Server, clearing away what a killed one left     memory.go  no waiting for one's own memory
//
// It decides nothing about roles, and knows no cluster: the daemon tells it.
package attach

// Package nbd serves volumes over the NBD protocol, on unix and tcp sockets, to the kernel's client, qemu, libnbd and
// fio. The daemon calls it: it gives an Exports, which says what this node may serve at this moment, and listeners.
//
// It refuses to decide anything about roles, leases or replication: it asks Export.Gate before it admits a request and
// directly before it answers one (R11), and when Export.Gone is closed it ends the connection without another answer.
// It never answers for a volume it was not asked for by name, and no byte from a client makes it allocate before the
// byte was checked.
//
//	client --> reader goroutine --> Export.Submit ... Request.Done --> queue --> writer goroutine --> client
//	           parse, check,                                             \--> or Done itself, when it is the only
//	           payload into a Buf                                             request and the socket takes it at once
//
// Three goroutines serve a connection: the reader, the writer, and one that waits for the end (Gone, or the server's).
// Requests come from a free list that belongs to the connection; data lies in pooled blockdev.Bufs from socket to device.
//
// Invariants:
//   - a request is counted in inflight from its header to its answer; inflight <= Config.MaxRequestsInFlight
//   - the bytes of a request are taken from the server's budget before the Buf is made, and given back with it
//   - whoever sends (conn.sender) owns conn.out; nobody else writes to the socket after the handshake
//   - after Gone no byte is written; an admitted request then belongs to the volume alone
package nbd

//go:build mutate_standby_flush

package replication

import "hacluster/replication/wire"

// mutateFlush: a standby answers a flush, and a write with FUA, before its disk has it (R20 broken).
func mutateFlush(f *wire.Frame) (dropped bool) {
	f.Flags &^= wire.FUA
	return f.Kind == wire.Flush
}

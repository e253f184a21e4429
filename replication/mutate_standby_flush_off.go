//go:build !mutate_standby_flush

package replication

import "hacluster/replication/wire"

// mutateFlush does something in a mutant of the laboratory only (docs/lab.md).
func mutateFlush(*wire.Frame) (dropped bool) { return false }

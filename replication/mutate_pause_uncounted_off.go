//go:build !mutate_pause_uncounted

package replication

import "hacluster/heartbeat/cluster"

// mutatePause does something in a mutant of the laboratory only (docs/lab.md).
func mutatePause(now func() cluster.Instant) func() cluster.Instant { return now }

//go:build !mutate_epoch_unstored

package replication

// mutateEpochUnstored is on in a mutant of the laboratory only (docs/lab.md).
const mutateEpochUnstored = false

//go:build !mutate_lease_unchecked

package replication

// mutateLeaseUnchecked is on in a mutant of the laboratory only (docs/lab.md).
const mutateLeaseUnchecked = false

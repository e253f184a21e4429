//go:build mutate_lease_unchecked

package replication

// mutateLeaseUnchecked: a lease that was granted once is never held against the clock (R11 broken).
const mutateLeaseUnchecked = true

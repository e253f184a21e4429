//go:build !mutate_promote_early

package failover

// mutatePromoteEarly is on in a mutant of the laboratory only (docs/lab.md).
const mutatePromoteEarly = false

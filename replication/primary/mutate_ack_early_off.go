//go:build !mutate_ack_early

package primary

// mutateAckEarly is on in a mutant of the laboratory only (docs/lab.md).
const mutateAckEarly = false

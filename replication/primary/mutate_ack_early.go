//go:build mutate_ack_early

package primary

// mutateAckEarly: a write is acknowledged without the standby's answer (R3 broken).
const mutateAckEarly = true

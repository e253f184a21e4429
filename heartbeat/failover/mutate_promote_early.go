//go:build mutate_promote_early

package failover

// mutatePromoteEarly: the leader waits for half of a lease only before it promotes another (R10 broken). Not for none of
// it: that would take the volume from a healthy primary between two renewals, and anybody would notice.
const mutatePromoteEarly = true

//go:build mutate_epoch_unstored

package replication

// mutateEpochUnstored: a replica answers in an epoch that its superblock does not name (R2 broken).
const mutateEpochUnstored = true

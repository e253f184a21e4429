//go:build mutate_old_streams

package standby

// mutateOldStreams: a replica takes the stream of an older epoch, also while it is primary itself (R2 broken).
const mutateOldStreams = true

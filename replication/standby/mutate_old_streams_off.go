//go:build !mutate_old_streams

package standby

// mutateOldStreams is on in a mutant of the laboratory only (docs/lab.md).
const mutateOldStreams = false

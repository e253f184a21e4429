//go:build race

package replication

// raceEnabled: the race detector has sync.Pool drop things at random.
const raceEnabled = true

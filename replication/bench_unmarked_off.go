//go:build !bench_unmarked

package replication

// benchUnmarked is on in the benchmark of what marks cost only (make bench-resync).
func benchUnmarked(*Config) {}

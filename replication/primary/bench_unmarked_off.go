//go:build !bench_unmarked

package primary

// benchUnmarked is on in the benchmark of what the maps cost only (make bench-resync).
const benchUnmarked = false

//go:build bench_unmarked

package primary

// benchUnmarked: the maps in memory are told of nothing. A replica that comes back gets nothing copied: for the benchmark
// of what the maps cost, and for nothing else.
const benchUnmarked = true

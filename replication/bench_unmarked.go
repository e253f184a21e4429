//go:build bench_unmarked

package replication

import "log/slog"

// benchUnmarked has nothing marked on stable storage, for the benchmark of what that costs, and says so.
func benchUnmarked(cfg *Config) {
	cfg.Marks = nil
	slog.Error("this haclusterd was built to measure what marks cost: it keeps none, and loses data", "volume", cfg.Volume.Name)
}

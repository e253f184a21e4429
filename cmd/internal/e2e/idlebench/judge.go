package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"

	"hacluster/cmd/internal/e2e"
)

// judge prints a line for each daemon, the middle of its looks and how far they reach, and tells who is above the limit.
// A line is of a node, or of what it was: leadership may have moved between two looks.
func judge(o options, series [][]look) (err error) {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "BINARIES\tDAEMON\t% OF A CORE\tFROM..TO\tSWITCHES/S\tCALLS/S")
	for i, looks := range series {
		for _, n := range e2e.Nodes {
			for _, p := range partsOf(looks, n) {
				core, switches, calls := columns(looks, n, p)
				middle := median(core)
				called := "perf cannot tell"
				if c := median(calls); c >= 0 {
					called = fmt.Sprintf("%.0f", c)
				}
				fmt.Fprintf(t, "%s\t%s, %s\t%.2f\t%.2f..%.2f\t%.0f\t%s\n", o.bins[i], n, p, middle, slices.Min(core), slices.Max(core), median(switches), called)
				if middle > o.limit {
					err = errors.Join(err, fmt.Errorf("%s: %s (%s) takes %.2f %% of a core, the limit is %g %%", o.bins[i], n, p, middle, o.limit))
				}
			}
		}
	}
	return errors.Join(t.Flush(), err)
}

func partsOf(looks []look, node string) (parts []string) {
	for _, l := range looks {
		if l.node == node && !slices.Contains(parts, l.part) {
			parts = append(parts, l.part)
		}
	}
	return parts
}

func columns(looks []look, node, part string) (core, switches, calls []float64) {
	for _, l := range looks {
		if l.node == node && l.part == part {
			core, switches, calls = append(core, l.core), append(switches, l.switches), append(calls, l.calls)
		}
	}
	return core, switches, calls
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

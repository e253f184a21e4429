package scenario

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Line is a result in one line, with the reasons below it when it did not pass.
func (r Result) Line() string {
	line := fmt.Sprintf("%-7s %-26s %5.1f s  outage %s, longest gap %d ms, moved %d, lost %d, %d writes, %d reads, %d unknown",
		r.Verdict, r.Scenario, r.DurationSec, r.outage(), r.LongestGap, r.Changes, r.LostWrites, r.Writes, r.Reads, r.Unknown)
	if n := len(r.Outages); n > 1 {
		sorted := slices.Sorted(slices.Values(r.Outages))
		line += fmt.Sprintf("\n          outages of %d faults: min %d, p50 %d, p90 %d, p99 %d, max %d ms", n, sorted[0], sorted[n/2], sorted[n*9/10], sorted[n*99/100], sorted[n-1])
	}
	if len(r.Pairs) > 0 {
		line += fmt.Sprintf("\n          %d double faults of which both bit (%d more met nothing to harm, and do not count), power cuts took %d changes back", total(r.Pairs), r.Toothless, r.Unflushed)
		for _, counts := range []map[string]int{r.Moments, r.Pairs} {
			line += "\n         "
			for i, name := range slices.Sorted(maps.Keys(counts)) {
				if i > 0 {
					line += ";"
				}
				line += fmt.Sprintf(" %s %d", name, counts[name])
			}
		}
	}
	if r.Degraded > 0 {
		line += fmt.Sprintf("\n          %d faults met a volume whose standby had just been dropped: they suspended it", r.Degraded)
	}
	if c := r.Claims; c.Checks > 0 {
		line += fmt.Sprintf("\n          status held against the disks %d times (%d: nobody was sure): %d members had everything, %d pairs were equal; of %d replicas behind, %d differed, within dirty_bytes, which was less than the volume for %d",
			c.Checks, c.Silent, c.Members, c.Equal, c.Behind, c.Differ, c.Partly)
	}
	if r.Late > 0 {
		line += fmt.Sprintf("\n          clients waited longer than the RTO target in %d of the faults: its files are kept", r.Late)
	}
	for _, why := range r.Reasons {
		line += "\n          " + why
	}
	return line
}

func (r Result) outage() string {
	if r.OutageMs < 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", r.OutageMs)
}

// Markdown is the table of many results.
func Markdown(all []Result) string {
	var b strings.Builder
	b.WriteString("| scenario | faults.md | service | verdict | outage | longest gap | moved | lost writes | healed in | writes | unknown | proof |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		verdict := r.Verdict
		if verdict != Passed {
			verdict = "**" + verdict + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %d ms | %d | %d | %d ms | %d | %d | %s |\n", r.Scenario, r.Covers, r.Expected, verdict,
			r.outage(), r.LongestGap, r.Changes, r.LostWrites, r.HealMs, r.Writes, r.Unknown, cell(r.Proof))
	}
	for _, r := range all {
		if r.Verdict != Passed {
			fmt.Fprintf(&b, "\n%s, %s:\n", r.Scenario, r.Verdict)
			for _, why := range r.Reasons {
				fmt.Fprintf(&b, "- %s\n", why)
			}
		}
	}
	return b.String()
}

// cell keeps a text within its cell of the table.
func cell(s string) string {
	s = strings.NewReplacer("|", "/", "\n", " ").Replace(s)
	if len(s) > 90 {
		s = s[:90] + "..."
	}
	return s
}

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"hacluster/cmd/internal/api"
)

// quantile is the smallest value that at least the share q of all values do not exceed.
func quantile(values []time.Duration, q float64) time.Duration {
	v := slices.Sorted(slices.Values(values))
	return v[max(int(math.Ceil(q*float64(len(v))))-1, 0)]
}

func stagesText(stages []api.Stage) string {
	var texts []string
	for _, s := range stages {
		texts = append(texts, fmt.Sprintf("%s %d", s.Name, s.Ms))
	}
	return "(" + strings.Join(texts, ", ") + ")"
}

// plain says what the stages are.
var plain = map[string]string{
	"detect":      "silence since the last sign of life, until the old primary's lease was over for sure",
	"decide":      "the vote of the majority",
	"promote":     "the mirror becomes the primary",
	"first write": "a client finds it and has a first write acknowledged",
}

// report prints the distribution, and says whether every round kept the limit.
func report(all []round, writes int, limit time.Duration) error {
	if len(all) == 0 {
		return nil
	}
	var waits, backs []time.Duration
	stages, names := map[string][]time.Duration{}, []string{}
	late, rosy := 0, 0
	for _, r := range all {
		waits, backs = append(waits, r.wait), append(backs, r.back)
		for _, s := range r.stages {
			if stages[s.Name] == nil {
				names = append(names, s.Name)
			}
			stages[s.Name] = append(stages[s.Name], time.Duration(s.Ms)*time.Millisecond)
		}
		if r.wait > limit {
			late++
		}
		if r.rosy {
			rosy++
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	row := func(what string, d time.Duration, remark string) {
		fmt.Fprintf(w, "  %s\t%d ms\t%s\n", what, d.Milliseconds(), remark)
	}
	fmt.Fprintf(w, "\nfrom the kill to the first acknowledged write, %d times:\n", len(all))
	row("min", slices.Min(waits), "")
	for _, q := range []int{50, 90, 99} {
		row(fmt.Sprintf("p%d", q), quantile(waits, float64(q)/100), fmt.Sprintf("%d of 100 were as fast as this or faster", q))
	}
	row("max", slices.Max(waits), fmt.Sprintf("limit %v, target of the cluster (rto) %v", limit, benchTarget))
	fmt.Fprintln(w, "where the time goes, medians of the cluster's own record (ha-admin failovers):")
	for _, n := range names {
		row(n, quantile(stages[n], 0.5), plain[n])
	}
	row("catching up", quantile(backs, 0.5), "median, from the restart of the killed daemon to healthy, under load")
	fmt.Fprintf(w, "  lost\t0\tof %d acknowledged writes; both copies are the same, byte by byte\n", writes)
	w.Flush()
	var errs []error
	if late > 0 {
		errs = append(errs, fmt.Errorf("%d of %d failovers took longer than %v, the longest %v", late, len(all), limit, slices.Max(waits).Round(time.Millisecond)))
	}
	if rosy > 0 {
		errs = append(errs, fmt.Errorf("%d of %d failovers took more than twice as long as the cluster's own record says", rosy, len(all)))
	}
	return errors.Join(errs...)
}

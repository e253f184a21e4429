package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// plain says what the stages of a failover are.
var plain = map[string]string{
	"detect":      "silence, until it was sure that the old primary may not act any more",
	"decide":      "the vote of the majority",
	"promote":     "the mirror becomes the primary",
	"first write": "the clients find it and have a first write acknowledged",
}

// table sums up.
func (s *story) table() {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	row := func(what, value, remark string) { fmt.Fprintf(w, "  %s\t%s\t%s\n", what, value, remark) }
	fmt.Fprintln(w)
	row("acknowledged writes lost", "0", fmt.Sprintf("of %d, in %d blocks", s.record.Writes, s.record.Size()))
	row("errors seen by the programs", "0", "they reconnected and went on")
	row("time without service (RTO)", ms(s.outage), fmt.Sprintf("from the kill to the next acknowledged write; target %v", rtoTarget))
	for _, st := range s.moved.Stages {
		row("  "+st.Name, ms(time.Duration(st.Ms)*time.Millisecond), plain[st.Name])
	}
	row("", "", "(the stages count from the last sign of life of "+s.killed+", a moment before the kill)")
	row("file system", "clean", fmt.Sprintf("%d files, %s, all the same", s.tree.files, mib(s.tree.bytes)))
	row("resync", fmt.Sprintf("%.1f s", s.resync.Seconds()), fmt.Sprintf("from the restart of %s to healthy; %s were out of date and copied", s.killed, mib(s.differ)))
	row("the two copies", "identical", fmt.Sprintf("compared byte by byte, %s each", mib(s.onDisks)))
	row("the whole demo", fmt.Sprintf("%.0f s", time.Since(s.began).Seconds()), "")
	w.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

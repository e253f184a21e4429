package scenario

import (
	"strconv"
	"time"
)

// The verdicts.
const (
	Passed = "passed"
	Failed = "failed" // the cluster did wrong
	Broken = "broken" // nothing is proven: the fault did not bite, or the laboratory itself failed
)

// Result is what a run showed.
type Result struct {
	Scenario string   `json:"scenario"`
	Covers   string   `json:"covers"`
	Expected Service  `json:"expected"`
	Verdict  string   `json:"verdict"`
	Reasons  []string `json:"reasons"` // why it did not pass
	Proof    string   `json:"proof"`   // that the fault bit
	Long     string   `json:"long"`    // what was seen in a long phase before it

	OutageMs    int64          `json:"outage_ms"`      // last acknowledgement before the fault to the first one after; -1: none came
	Outages     []int64        `json:"outages_ms"`     // of each fault of a series
	LongestGap  int64          `json:"longest_gap_ms"` // without an acknowledgement, from the fault to its mending
	LostWrites  int            `json:"lost_writes"`    // acknowledged, and gone in the end
	Changes     int            `json:"changes"`        // of the primary
	Degraded    int            `json:"degraded"`       // faults of a series that met a volume without a standby
	Late        int            `json:"late"`           // faults during which clients waited longer than the RTO target: right on a busy machine, and worth a look
	Claims      Claims         `json:"claims"`         // of a soak
	Pairs       map[string]int `json:"pairs"`          // double faults of which both bit, by their kinds
	Moments     map[string]int `json:"moments"`        // the same, by when the second struck
	Toothless   int            `json:"toothless"`      // double faults of which one met nothing that it could harm: they do not count
	Unflushed   int            `json:"unflushed"`      // writes and names that power cuts of double faults took back
	HealMs      int64          `json:"heal_ms"`        // from the mending to healthy
	Writes      int            `json:"writes"`         // acknowledged
	Reads       int            `json:"reads"`
	Unknown     int            `json:"unknown"` // operations that were never answered
	Errors      map[string]int `json:"errors"`  // answers that were errors, by NBD error number
	DurationSec float64        `json:"duration_seconds"`
}

func (r *Result) fail(reason string) {
	r.Reasons = append(r.Reasons, reason)
	if r.Verdict != Broken {
		r.Verdict = Failed
	}
}

func (r *Result) broken(reason string) {
	r.Reasons = append(r.Reasons, reason)
	r.Verdict = Broken
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

func ms(d time.Duration) int64 { return d.Milliseconds() }

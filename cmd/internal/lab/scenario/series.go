package scenario

import (
	"fmt"
	"time"

	"hacluster/cmd/internal/lab/disk"
)

// seriesThink keeps the record of a long run small enough to be judged.
const seriesThink = 15 * time.Millisecond

// Failovers is n failovers in a row: kill, pause, cut and power cut of the primary in turn.
func Failovers(n int) Scenario {
	turn := []Scenario{
		{Name: "kill", Fault: Kill(P), Hold: 300 * time.Millisecond},
		{Name: "pause", Fault: Pause(P), Hold: 2 * time.Second},
		{Name: "cut", Fault: Cut("", P, S, W), Hold: 300 * time.Millisecond},
		{Name: "power cut", Fault: PowerCut(disk.Torn, P), Hold: 300 * time.Millisecond},
	}
	return Scenario{
		Name: "failovers", Covers: "K109 K110 T83 X98", What: fmt.Sprintf("%d failovers in a row", n), Disks: true, Think: seriesThink,
		Expect: Expect{Service: Moves},
		Series: func(*Run) func() (Scenario, bool) {
			i := -1
			return func() (Scenario, bool) {
				i++
				s := turn[i%len(turn)]
				s.Expect = Expect{Service: Moves, Changes: 1}
				return s, i < n
			}
		},
	}
}

// Soak is faults in an order that follows from the seed, for a time. All writes have FUA, so that all power may go.
func Soak(d time.Duration) Scenario {
	choice := soakChoice()
	return Scenario{
		Name: "soak", Covers: "the whole matrix", What: fmt.Sprintf("random faults for %v", d), Disks: true, FUA: true, Claims: true, Think: seriesThink,
		Expect: Expect{Service: Survives},
		Series: func(r *Run) func() (Scenario, bool) {
			end := time.Now().Add(d)
			return func() (Scenario, bool) { return choice[r.Rand.IntN(len(choice))], time.Now().Before(end) }
		},
	}
}

// soakChoice leaves out what needs another cluster, takes long, or may cost data by right: that has runs of its own.
func soakChoice() (choice []Scenario) {
	for _, s := range Table() {
		if s.RTO == "" && s.Mode == "" && s.Hold <= 12*time.Second && !s.Alone && !s.Clocks {
			choice = append(choice, s)
		}
	}
	return choice
}

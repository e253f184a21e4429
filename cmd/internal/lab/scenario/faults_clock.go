package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hacluster/cmd/internal/lab/wallclock"
)

// StepClock steps the time of day of nodes, and back when it is mended.
func StepClock(by time.Duration, roles ...Role) Fault {
	return func(_ context.Context, r *Run) (Injected, error) {
		nodes := names(r, roles)
		step := func(by time.Duration) (err error) {
			for _, n := range nodes {
				err = errors.Join(err, wallclock.Step(r.Lab.Clock(n), by))
			}
			return err
		}
		return Injected{
			Bites: func() (proof string, ok bool, err error) {
				ok = true
				for _, n := range nodes {
					seen, err := wallclock.Seen(r.Lab.Clock(n))
					if err != nil {
						return proof, false, err
					}
					proof += fmt.Sprintf("%s read a clock off by %v %d times; ", n, by, seen)
					ok = ok && seen > 0
				}
				return proof, ok, nil
			},
			Mend: func(context.Context) error { return step(0) },
		}, step(by)
	}
}

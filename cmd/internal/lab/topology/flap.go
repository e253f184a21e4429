package topology

import (
	"context"
	"errors"
	"time"
)

// Flap cuts and heals in turn until ctx ends, and leaves it healed.
func (l *Lab) Flap(ctx context.Context, rules []Rule, on, off time.Duration) (err error) {
	wait := func(d time.Duration) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	for err == nil && ctx.Err() == nil {
		if err = l.Add(rules...); err != nil {
			break
		}
		wait(off)
		err = l.Remove(rules...)
		if err == nil {
			wait(on)
		}
	}
	return errors.Join(err, l.Remove(rules...))
}

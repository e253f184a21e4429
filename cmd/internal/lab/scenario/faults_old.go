package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hacluster/cmd/internal/lab/disk"
	"hacluster/cmd/internal/lab/topology"
)

// Faults of a past that comes back: a primary that did not notice what happened, a standby that is all that is left.

// Awakened pauses the primary until another one has been promoted and has worked for a while. Then the second fault
// strikes, and the paused one goes on in a world that it does not know. The answers to its last writes had not reached it:
// the standby had taken them, so their blocks hold something else by now, and it would send them again.
func Awakened(second Fault) Fault {
	const (
		deaf   = 50 * time.Millisecond // long enough for a write of each client, far shorter than what drops a member
		worked = 400                   // answers of the new primary: most blocks are overwritten by then
	)
	return func(ctx context.Context, r *Run) (Injected, error) {
		old := r.primary
		unheard := topology.OneWay(r.Standby(), old, "")
		if err := r.Lab.Add(unheard...); err != nil {
			return Injected{}, err
		}
		time.Sleep(deaf)
		paused, err := Pause(P)(ctx, r)
		if err := errors.Join(err, r.Lab.Remove(unheard...)); err != nil {
			return paused, err
		}
		asleep, err := r.bites(ctx, paused)
		if err == nil {
			err = r.answers(ctx, r.Other(old), worked, within)
		}
		if err != nil {
			return paused, fmt.Errorf("nobody took over from the paused primary: %w", err)
		}
		in, err := second(ctx, r)
		if err != nil {
			return paused, err
		}
		bites := in.Bites
		in.Bites = func() (string, bool, error) {
			proof, ok, err := bites()
			return asleep + ", then " + proof, ok, err
		}
		return in, r.Lab.Resume(old)
	}
}

// PowerCutForced takes all power; then the standby is started without its primary and promoted by a person's word. With
// writes that are all durable, it must have every one: that is what a flush on the standby is for (R20).
func PowerCutForced(mode disk.Mode) Fault {
	cut := PowerCut(mode, P, S, W)
	return func(ctx context.Context, r *Run) (Injected, error) {
		in, err := cut(ctx, r)
		in.Mend = r.startForced
		return in, err
	}
}

package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/topology"
)

// resyncBlocks and resyncRate make a resync last for some seconds.
const (
	resyncBlocks = 3000
	resyncRate   = "40mbit"
)

// Resyncing is the phase in which the standby came back after much was written, and is being resynced over a cable that
// is slow enough for a fault to strike in the middle.
func Resyncing(ctx context.Context, r *Run) error {
	ctx, cancel := context.WithTimeout(ctx, 3*toHeal)
	defer cancel()
	v, err := r.watch.until(ctx, func(v View) bool { return v.Primary != "" }) // on a busy machine nobody may answer for a moment
	if err != nil {
		return fmt.Errorf("nobody is primary: %w", err)
	}
	standby := r.Other(v.Primary)
	if err := r.Lab.Kill(standby); err != nil {
		return err
	}
	if _, err := r.watch.until(ctx, func(v View) bool { return len(v.InSync) == 1 }); err != nil {
		return fmt.Errorf("the standby was not dropped: %w", err)
	}
	if err := r.Client.Fill(ctx, resyncBlocks); err != nil {
		return err
	}
	if err := r.Lab.Slow(topology.Shape{Node: v.Primary, Network: topology.Replication, Rate: resyncRate}); err != nil {
		return err
	}
	r.cleanup = append(r.cleanup, r.Lab.Heal)
	if err := r.Lab.Start(standby); err != nil {
		return err
	}
	if _, err := r.watch.until(ctx, func(v View) bool { return v.State == api.VolumeResyncing }); err != nil {
		return fmt.Errorf("no resync was seen: %w", err)
	}
	return nil
}

// idleFor is longer than a lease and than any patience with a member that owes an answer.
const idleFor = 2 * time.Second

// Idle is the phase in which nobody reads or writes; clients come back when the fault is seen to bite.
func Idle(ctx context.Context, r *Run) error {
	_, r.resume = r.Client.Pause()
	select {
	case <-time.After(idleFor):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// LedByWitness is the phase in which leadership has moved off the primary, longer ago than a lease: who promotes another then granted the leases
// itself, and nothing but their end is waited for. A leader of a new term waits for a whole lease in any case.
func LedByWitness(ctx context.Context, r *Run) error {
	ctx, cancel := context.WithTimeout(ctx, toHeal)
	defer cancel()
	v, err := r.watch.until(ctx, func(v View) bool { return v.Leader != "" && v.Leader != v.Primary })
	if standby := r.Other(v.Primary); err == nil && v.Leader == standby { // it may lead for ever: a fault before this one left it so
		if err := errors.Join(r.Lab.Stop(standby, toHeal), r.Lab.Start(standby)); err != nil {
			return err
		}
	}
	if err == nil {
		_, err = r.watch.until(ctx, func(v View) bool { return v.Leader == r.Witness() && v.State == api.VolumeHealthy })
	}
	if err != nil {
		return fmt.Errorf("the witness was not made leader: %w", err)
	}
	rto, err := time.ParseDuration(r.state.Config.RTO) // longer than any lease
	if err != nil {
		return err
	}
	select {
	case <-time.After(rto):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// LedByStandby is the phase in which the standby leads: without the witness, leadership moves to it, and it stays there when
// the witness is back.
func LedByStandby(ctx context.Context, r *Run) error {
	ctx, cancel := context.WithTimeout(ctx, toHeal)
	defer cancel()
	if err := r.Lab.Kill(r.Witness()); err != nil {
		return err
	}
	led := func(v View) bool { return v.Leader != "" && v.Leader == r.Other(v.Primary) }
	if _, err := r.watch.until(ctx, led); err != nil {
		return fmt.Errorf("the standby was not made leader: %w", err)
	}
	if err := r.Lab.Start(r.Witness()); err != nil {
		return err
	}
	rto, err := time.ParseDuration(r.state.Config.RTO) // longer than two leases: a young leader stays
	if err != nil {
		return err
	}
	select {
	case <-time.After(rto):
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = r.watch.until(ctx, func(v View) bool { return v.Node == r.Witness() && v.State == api.VolumeHealthy && led(v) })
	return err
}

// Switchover asks for the role to move in order and lets another fault strike while it moves.
func Switchover(then Fault) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		asked := make(chan error, 1)
		go func() { asked <- r.failover(ctx) }()
		r.cleanup = append(r.cleanup, func() error {
			<-asked // whatever came of it: the fault decides
			return nil
		})
		select {
		case <-time.After(time.Duration(r.Rand.IntN(40)) * time.Millisecond):
		case <-ctx.Done():
			return Injected{}, ctx.Err()
		}
		return then(ctx, r)
	}
}

// failover moves the role to the standby.
func (r *Run) failover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := api.Dial(ctx, []string{socket(r.Lab, r.Witness())}, api.DialSocket)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Failover(ctx, api.FailoverRequest{Volume: topology.Volume, To: r.Standby()})
	return err
}

// Promoting lets a second fault strike when the first one has moved the role: the new primary has just been promoted.
func Promoting(first, second Fault) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		a, err := first(ctx, r)
		if err != nil {
			return a, err
		}
		epoch := r.watch.present().Epoch
		waiting, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		if _, err := r.watch.until(waiting, func(v View) bool { return v.Epoch > epoch }); err != nil {
			return a, fmt.Errorf("nobody was promoted: %w", err)
		}
		b, err := second(ctx, r)
		if err != nil {
			return a, err
		}
		return Injected{
			Bites: func() (string, bool, error) {
				pa, oka, ea := a.Bites()
				pb, okb, eb := b.Bites()
				return pa + "; then " + pb, oka && okb, errors.Join(ea, eb)
			},
			Mend: func(ctx context.Context) error { return errors.Join(b.mend(ctx), a.mend(ctx)) },
		}, nil
	}
}

func (in Injected) mend(ctx context.Context) error {
	if in.Mend == nil {
		return nil
	}
	return in.Mend(ctx)
}

// clean undoes what phases did, once.
func (r *Run) clean() (err error) {
	for _, f := range r.cleanup {
		err = errors.Join(err, f())
	}
	r.cleanup = nil
	return err
}

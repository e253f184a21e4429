package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/topology"
)

// Verifying is the phase in which the replicas are compared, with consent to repair, again and again until the fault is
// mended: by whoever is primary, also after the role has moved. No fault here makes members differ, so a comparison that
// finds something fails the run: a false alarm overwrites a standby.
func Verifying(ctx context.Context, r *Run) error {
	going, stop := context.WithCancel(context.WithoutCancel(ctx))
	v := verifier{r: r, runs: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { defer close(done); v.run(going) }()
	r.cleanup = append(r.cleanup, func() error {
		stop()
		<-done
		if v.found != "" {
			r.res.fail("a comparison found differences between members: " + v.found)
		}
		return nil
	})
	select {
	case <-v.runs:
		return nil
	case <-time.After(toHeal):
		return errors.New("no comparison was seen to run")
	case <-ctx.Done():
		return ctx.Err()
	}
}

type verifier struct {
	r     *Run
	runs  chan struct{} // has one when a comparison was seen to run
	found string        // the first that found something
}

func (v *verifier) run(ctx context.Context) {
	for ctx.Err() == nil {
		v.once(ctx)
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// once begins a comparison, unless one runs, and looks at what it has found. While the fault lasts nobody may answer.
func (v *verifier) once(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := api.Dial(ctx, []string{socket(v.r.Lab, v.r.Witness())}, api.DialSocket)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.VolumeVerify(ctx, api.VolumeVerifyRequest{Volume: topology.Volume, Repair: true})
	s, _, err := c.Status(ctx, topology.Volume)
	if err != nil || len(s.Volumes) != 1 || s.Volumes[0].Verify == nil {
		return
	}
	now := s.Volumes[0].Verify
	if now.State == api.VerifyRunning {
		select {
		case v.runs <- struct{}{}:
		default:
		}
	}
	if now.DifferentBlocks > 0 && v.found == "" {
		v.found = fmt.Sprintf("%d blocks, compared by %s, ranges %+v", now.DifferentBlocks, now.Primary, now.Ranges)
	}
}

package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/client"
	"hacluster/cmd/internal/lab/history"
	"hacluster/cmd/internal/lab/wire"
)

// Bound is that of a volume in async.
type Bound struct {
	Bytes int64
	Time  time.Duration
}

// block is what makes the bound one of a volume.
func (b Bound) block(patience time.Duration) string {
	return fmt.Sprintf("  async {\n    max_lag_bytes = \"%dB\"\n    max_lag = %q\n    patience = %q\n  }", b.Bytes, b.Time, patience)
}

const (
	// freezeEvery is how often the standby is stopped to be looked at, and freezeFor how long before that: what was on its way has been
	// acknowledged or held then.
	freezeEvery = 10 * time.Second
	freezeFor   = 500 * time.Millisecond
)

// WAN is a long line to the standby: 100 ms there and back, and 20 Mbit/s from the primary.
func WAN() Fault {
	slow := Slow("20mbit", P)
	delay := Rewire(wire.Config{Delay: 50 * time.Millisecond}, func(s wire.Stats) uint64 { return s.Delayed }, S)
	return func(ctx context.Context, r *Run) (Injected, error) {
		a, err := delay(ctx, r)
		if err != nil {
			return a, err
		}
		b, err := slow(ctx, r)
		if err != nil {
			return a, err
		}
		return Injected{Bites: func() (string, bool, error) {
			pa, oka, ea := a.Bites()
			pb, okb, eb := b.Bites()
			return pa + "; " + pb, oka && okb, errors.Join(ea, eb)
		}, Mend: a.Mend}, nil // it heals everything
	}
}

// Bounded lasts as long as a fault, and holds a volume in async against its bound meanwhile: what its primary says of the lag, ten
// times a second, and, again and again, what clients were told of against the bytes on the disk of a standby that is stopped
// as it stands. It bites when writers are slowed.
func Bounded(b Bound, f Fault) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		in, end, err := held(ctx, r, b, f)
		if err != nil {
			return in, err
		}
		mend := in
		in.Mend = func(ctx context.Context) error {
			end()
			return mend.mend(ctx)
		}
		return in, nil
	}
}

// Long is the phase in which a volume in async is Bounded for so long, under a fault that lasts on when the next one strikes.
func Long(b Bound, f Fault, d time.Duration) Phase {
	return func(ctx context.Context, r *Run) error {
		v, err := r.watch.until(ctx, func(v View) bool { return v.Primary != "" })
		if err != nil {
			return fmt.Errorf("nobody is primary: %w", err)
		}
		r.primary = v.Primary
		in, end, err := held(ctx, r, b, f)
		if err != nil {
			return err
		}
		r.cleanup = append(r.cleanup, func() error { return in.mend(ctx) })
		defer end()
		if r.res.Long, err = r.bites(ctx, in); err != nil {
			return err
		}
		for over := time.Now().Add(d); time.Now().Before(over); {
			if err := r.answers(ctx, r.primary, 1, within); err != nil {
				r.res.fail(fmt.Sprintf("the service went on for %v only: %v", time.Until(over), err))
				return nil
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r.res.Long, _, err = in.Bites()
		return err
	}
}

// held injects a fault and begins to hold the volume against its bound, until end is called.
func held(ctx context.Context, r *Run, b Bound, f Fault) (in Injected, end func(), err error) {
	if in, err = f(ctx, r); err != nil {
		return in, nil, err
	}
	look := &looking{r: r, bound: b}
	watching, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { look.run(watching) })
	bites := in.Bites
	in.Bites = func() (string, bool, error) {
		proof, ok, err := bites()
		slowed, most := look.seen()
		return fmt.Sprintf("%s; writers slowed: %v, %s", proof, slowed, most), ok && slowed && look.compressed(), err
	}
	return in, func() {
		stop()
		done.Wait()
		_, most := look.seen()
		r.cfg.Log.Info("held against the bound", "most", most)
		if look.looks == 0 || look.disks == 0 {
			r.res.broken("the bound was never looked at")
		}
	}, nil
}

// looking holds what is said, and what is there, against the bound.
type looking struct {
	r     *Run
	bound Bound

	mu           sync.Mutex
	looks, disks int
	onDisk       int64
	onDiskAge    time.Duration
	slowed       bool
	lagBytes     int64
	lagMs        int64
	line         *api.LineStatus // newest; nil: nothing is set for it
}

// compressed reports whether what is to be compressed was.
func (k *looking) compressed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.line == nil || k.line.SentBytes < k.line.PlainBytes*9/10
}

func (k *looking) seen() (slowed bool, most string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	line := ""
	if l := k.line; l != nil {
		line = fmt.Sprintf("%d bytes were sent as %d; ", l.PlainBytes, l.SentBytes)
	}
	return k.slowed, line + fmt.Sprintf("the standby lacked %d bytes at most, for %d ms, as status said %d times, and %d bytes, told of within %v, by %d looks at its disk",
		k.lagBytes, k.lagMs, k.looks, k.onDisk, k.onDiskAge.Round(time.Millisecond), k.disks)
}

func (k *looking) run(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	frozen := time.Now().Add(-freezeEvery / 2)
	for ctx.Err() == nil {
		if v, ok := k.r.statusNow(ctx); ok && v.Async != nil {
			k.said(v)
		}
		if time.Since(frozen) >= freezeEvery {
			frozen = time.Now()
			if err := k.freeze(ctx); err != nil && ctx.Err() == nil {
				k.r.res.broken("hold the disk of the standby against the bound: " + err.Error())
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// said judges a status.
func (k *looking) said(v api.VolumeStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looks++
	k.slowed = k.slowed || v.Async.Writers != api.WritersFree
	for _, p := range v.Replicas {
		if p.Node != k.r.Standby() {
			continue
		}
		if p.Line != nil {
			k.line = p.Line
		}
		k.lagBytes, k.lagMs = max(k.lagBytes, p.LagBytes), max(k.lagMs, p.LagMs)
		if p.LagBytes > k.bound.Bytes {
			k.r.res.fail(fmt.Sprintf("status says that %s lacks %d bytes, the bound is %d", p.Node, p.LagBytes, k.bound.Bytes))
		}
		// What it lacks grows older by itself; but nothing more is acknowledged then, and writers that waited for a second are held.
		if time.Duration(p.LagMs)*time.Millisecond > k.bound.Time+time.Second && v.Async.Writers != api.WritersHeld {
			k.r.res.fail(fmt.Sprintf("status says that %s lacks what was acknowledged %d ms ago, and that writers are %s; the bound is %v", p.Node, p.LagMs, v.Async.Writers, k.bound.Time))
		}
	}
}

// freeze stops the standby and counts what clients were told of and its disk has not: bytes, and from when to when they were told. A
// client is told a little later than the primary decides, the last one and the first one alike.
func (k *looking) freeze(ctx context.Context) error {
	standby := k.r.Standby()
	if err := k.r.Lab.Pause(standby); err != nil {
		return err
	}
	defer func() { _ = k.r.Lab.Resume(standby) }()
	select {
	case <-time.After(freezeFor):
	case <-ctx.Done():
		return ctx.Err()
	}
	path, err := k.r.Lab.Bytes(standby)
	if err != nil {
		return err
	}
	ops := k.r.Client.Record().Ops
	read, err := k.r.registersOn(path, standby, history.Clock())
	if err != nil {
		return err
	}
	bytes, age := k.r.lacks(k.bound, standby, append(ops, read...))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disks++
	k.onDisk, k.onDiskAge = max(k.onDisk, bytes), max(k.onDiskAge, age)
	return nil
}

// lacks holds what clients were told of and a disk has not against the bound.
func (r *Run) lacks(b Bound, standby string, ops []history.Op) (bytes int64, age time.Duration) {
	missing := history.Missing(ops)
	bytes, age = int64(len(missing))*client.BlockSize, span(missing)
	if bytes > b.Bytes {
		r.res.fail(fmt.Sprintf("%d bytes that clients were told of are not on the disk of %s, the bound is %d", bytes, standby, b.Bytes))
	}
	if age > b.Time+within/10 { // answers to clients may be late by what a busy machine takes
		r.res.fail(fmt.Sprintf("clients went on to be told of writes for %v while the disk of %s lacked one of before, the bound is %v", age, standby, b.Time))
	}
	return bytes, age
}

// span is from the first to the last answer.
func span(ops []history.Op) time.Duration {
	if len(ops) == 0 {
		return 0
	}
	first, last := ops[0].Answered, ops[0].Answered
	for _, o := range ops {
		first, last = min(first, o.Answered), max(last, o.Answered)
	}
	return last - first
}

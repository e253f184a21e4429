package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/history"
)

// tail is what a failover in async lost, as the disk of the next primary shows it.
type tail struct {
	bound Bound
	bytes int64
	age   time.Duration
}

// Beheaded is a fault that ends the primary of a volume in async. Clients stand still from then on, until what the next primary begins
// with has been read from its disk: it must be a prefix of the order of the writes, and lack no more than the bound.
func Beheaded(b Bound, f Fault) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		in, err := f(ctx, r)
		if err != nil {
			return in, err
		}
		// Behind the fault: before it, what the standby lacks would become less. But at once: what clients write to the next primary
		// covers what was lost.
		_, r.resume = r.Client.Pause()
		if err := r.follows(ctx, b); err != nil {
			return in, err
		}
		bites := in.Bites
		in.Bites = func() (string, bool, error) {
			proof, ok, err := bites()
			if r.tail != nil {
				proof += fmt.Sprintf("; %d bytes were lost, told of within %v", r.tail.bytes, r.tail.age.Round(time.Millisecond))
			}
			return proof, ok, err
		}
		return in, nil
	}
}

// follows waits until the standby serves in the primary's place, and judges what it has.
func (r *Run) follows(ctx context.Context, b Bound) error {
	standby := r.Standby()
	waiting, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	serves := []string{api.VolumeDegraded, api.VolumeResyncing, api.VolumeHealthy}
	if _, err := r.watch.until(waiting, func(v View) bool { return v.Primary == standby && slices.Contains(serves, v.State) }); err != nil {
		r.res.fail(fmt.Sprintf("%s does not serve in the place of %s within %v: %s", standby, r.primary, within, r.lastSaid()))
		return nil
	}
	path, err := r.Lab.Bytes(standby)
	if err != nil {
		return err
	}
	ops := r.Client.Record().Ops
	read, err := r.registersOn(path, standby, history.Clock())
	if err != nil {
		return err
	}
	all := append(ops, read...)
	r.tail = &tail{bound: b}
	r.tail.bytes, r.tail.age = r.lacks(b, standby, all)
	for _, what := range history.Overtaken(all, read) {
		r.res.fail(fmt.Sprintf("what %s begins with is no prefix of the order of the writes: %s", standby, what))
	}
	return nil
}

// told holds what the record of the failover says against what was lost.
func (t *tail) told(r *Run) {
	i := slices.IndexFunc(r.past, func(f api.Failover) bool { return f.From == r.primary && f.To == r.Standby() })
	if i < 0 {
		r.res.fail(fmt.Sprintf("no failover from %s is recorded: %+v", r.primary, r.past))
		return
	}
	f := r.past[i]
	if f.RPOBytes < t.bytes || f.RPOBytes != t.bound.Bytes || f.RPOMs != t.bound.Time.Milliseconds() || f.Lag != nil && f.Lag.Bytes > t.bound.Bytes {
		r.res.fail(fmt.Sprintf("%d bytes were lost, told of within %v, with the bound at %+v, and the record says %+v, heard last %+v", t.bytes, t.age, t.bound, f, f.Lag))
	}
	r.res.Proof += fmt.Sprintf("; the record says at most %d bytes and %d ms", f.RPOBytes, f.RPOMs)
	if f.Lag != nil {
		r.res.Proof += fmt.Sprintf(", and %d bytes when the old primary was heard last, %d ms before", f.Lag.Bytes, f.Lag.AgeMs)
	}
}

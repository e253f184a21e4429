package scenario

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/client"
	"hacluster/cmd/internal/lab/history"
)

// afterwards reads everything back, judges the record, stops the daemons and compares the replicas.
func (r *Run) afterwards(ctx context.Context, stopWatching func()) error {
	reading, cancel := context.WithTimeout(ctx, toStop)
	defer cancel()
	if err := r.Client.ReadAll(reading); err != nil {
		r.res.fail(err.Error())
	}
	if err := r.healthy(ctx, toHeal); err != nil {
		r.res.fail("after the load: " + err.Error())
	}
	if err := r.pastFailovers(ctx); err != nil {
		return err
	}
	end := r.watch.present()
	stopWatching()
	r.judge(end)
	r.stopAndCompare(end.Primary)
	r.storedEpochs(end)
	r.readLogs()
	return nil
}

// pastFailovers asks for the list of failovers, from any node.
func (r *Run) pastFailovers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, toStop)
	defer cancel()
	var sockets []string
	for _, n := range r.state.Daemons() {
		sockets = append(sockets, socket(r.Lab, n))
	}
	c, err := api.Dial(ctx, sockets, api.DialSocket)
	if err != nil {
		return fmt.Errorf("ask for the failovers: %w", err)
	}
	defer c.Close()
	past, err := c.Failovers(ctx)
	if err != nil {
		return fmt.Errorf("ask for the failovers: %w", err)
	}
	r.past = past
	r.watch.learn(past)
	return nil
}

// judge holds the record against the rules.
func (r *Run) judge(end View) {
	rec := r.Client.Record()
	_, tenures, two := r.watch.timeline()
	r.figures(rec.Ops, rec.Errors, tenures)
	for _, what := range append(two, rec.Broken...) {
		r.res.fail(what)
	}
	r.registers(rec.Ops)
	if n := total(r.res.Pairs); n >= 20 && r.res.Unflushed == 0 {
		r.res.broken("no power cut took anything back: this proves less than it says")
	}
	if r.tail != nil {
		r.tail.told(r)
	}
	if r.res.Long != "" {
		r.res.Proof = r.res.Long + "; then " + r.res.Proof
	}
	for _, what := range history.Primaries(rec.Ops, tenures) {
		r.res.fail(what)
	}
	allowed, errorsAllowed := 0, false
	for _, k := range r.strikes {
		allowed += k.expect.Changes
		errorsAllowed = errorsAllowed || k.expect.Errors
		r.service(k, rec.Ops)
	}
	if r.res.Changes > allowed {
		r.res.fail(fmt.Sprintf("the role moved %d times, %d at most are right: %v", r.res.Changes, allowed, tenures))
	}
	if len(rec.Errors) > 0 && !errorsAllowed {
		r.res.fail(fmt.Sprintf("clients saw errors: %v", rec.Errors))
	}
}

// registers judges what was read: every answer fits into one order, and nothing acknowledged is lost. Where a loss is expected no
// such order is there, but it has a bound.
func (r *Run) registers(ops []history.Op) {
	loss := int64(0)
	for _, k := range r.strikes {
		loss += k.expect.Loss
	}
	if loss > 0 {
		left := history.LeftBehind(ops, r.primary)
		r.res.LostWrites = len(left)
		if lost := int64(len(left)) * client.BlockSize; lost > loss {
			r.res.fail(fmt.Sprintf("%d bytes of acknowledged writes are lost, the bound is %d; the first is %v", lost, loss, left[0]))
		}
		if !slices.ContainsFunc(r.past, func(f api.Failover) bool { return f.From == r.primary && f.RPOBytes == loss }) {
			r.res.fail(fmt.Sprintf("no failover from %s tells of a loss of %d bytes at most: %+v", r.primary, loss, r.past))
		}
		return
	}
	bad, undecided := history.Registers(ops, toJudge)
	for i, v := range bad {
		if i == 5 {
			r.res.fail(fmt.Sprintf("and %d more blocks", len(bad)-i))
			break
		}
		r.res.fail(v.String())
	}
	if len(undecided) > 0 {
		r.res.broken(fmt.Sprintf("the search for an order took too long for %d blocks: nothing is proven of them", len(undecided)))
	}
	if r.res.LostWrites > 0 {
		r.res.fail(fmt.Sprintf("%d acknowledged writes are lost", r.res.LostWrites))
	}
}

// figures counts and times.
func (r *Run) figures(ops []history.Op, errs map[string]int, tenures []history.Tenure) {
	for _, o := range ops {
		switch {
		case o.Unknown:
			r.res.Unknown++
		case o.Kind == history.Write:
			r.res.Writes++
		default:
			r.res.Reads++
		}
	}
	r.res.Errors = errs
	r.res.Changes = history.Switches(tenures)
	r.res.LostWrites = history.Lost(ops)
	for _, k := range r.strikes {
		gap, _ := history.LongestGap(ops, k.At, k.Mended)
		if k.expect.goesOn() && gap > r.target() {
			r.res.Late++
		}
		r.res.LongestGap = max(r.res.LongestGap, ms(gap))
		r.res.HealMs = max(r.res.HealMs, k.HealMs)
		if d, ok := history.Outage(ops, k.Struck); ok {
			r.res.Outages = append(r.res.Outages, ms(d))
			r.res.OutageMs = max(r.res.OutageMs, ms(d))
		}
		r.res.Proof = k.Proof
	}
	if n := len(r.strikes); n > 1 && r.res.Pairs == nil {
		r.res.Proof = fmt.Sprintf("each of %d faults was seen to bite", n)
	}
}

// target is the RTO that the cluster is configured for.
func (r *Run) target() time.Duration {
	rto, err := time.ParseDuration(r.state.Config.RTO)
	if err != nil {
		r.res.broken("the target of the lab: " + err.Error())
	}
	return rto
}

// goesOn: the service is there while the fault lasts, after a while at most.
func (e Expect) goesOn() bool {
	switch e.Service {
	case GoesOn, Moves, Survives, Waits:
		return true
	}
	return false
}

// service judges availability by the record.
func (r *Run) service(k Strike, ops []history.Op) {
	switch {
	case k.expect.goesOn():
		if gap, _ := history.LongestGap(ops, k.At, k.Mended); gap > k.expect.within() {
			r.res.fail(fmt.Sprintf("%s: nothing was acknowledged for %v, %v at most are right", k.Name, gap, k.expect.within()))
		}
	case k.expect.Service == Suspends:
		// What was sent after the last lease ended cannot be answered before the mending. A lease is shorter than the RTO target.
		for _, o := range ops {
			if !o.Unknown && o.Sent > k.Struck+r.target() && o.Answered < k.Mended {
				r.res.fail(fmt.Sprintf("%s: nobody may be answered, but this was: %v", k.Name, o))
				break
			}
		}
	}
}

// stopAndCompare stops the daemons, the primary after its standbys so that the role stays, and compares the replicas.
func (r *Run) stopAndCompare(primary string) {
	isPrimary := func(n string) bool { return n == primary }
	standbys := slices.DeleteFunc(r.Replicas(), isPrimary)
	last := slices.DeleteFunc(r.All(), func(n string) bool { return slices.Contains(standbys, n) || isPrimary(n) })
	for _, n := range slices.Concat(standbys, []string{primary}, last) {
		if err := r.Lab.Stop(n, toStop); err != nil {
			r.res.fail(err.Error())
		}
	}
	for _, n := range standbys {
		places, err := compare(r.Lab.Backing(n), r.Lab.Backing(primary), 100)
		if err != nil {
			r.res.fail(err.Error())
		}
		if len(places) > 0 {
			r.res.fail(fmt.Sprintf("the replicas of %s and %s differ in %d blocks or more, the first at byte %d", n, primary, len(places), places[0]))
		}
	}
}

// readLogs looks for what a daemon must never say.
func (r *Run) readLogs() {
	for _, n := range r.state.Daemons() {
		b, err := os.ReadFile(r.Lab.Log(n))
		if err != nil {
			r.res.broken(err.Error())
			continue
		}
		for line := range strings.Lines(string(b)) {
			for _, word := range []string{"panic:", "fatal error:", "WARNING: DATA RACE"} {
				if strings.HasPrefix(line, word) {
					r.res.fail(fmt.Sprintf("%s says: %s", n, strings.TrimSpace(line)))
				}
			}
		}
	}
}

package scenario

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/client"
	"hacluster/cmd/internal/lab/history"
	"hacluster/cmd/internal/lab/topology"
)

// Config of a run.
type Config struct {
	Lab  *topology.Lab // up, no daemon started
	TLS  *tls.Config   // of the clients; nil: without
	Seed uint64        // of what is random in faults
	Log  *slog.Logger
}

// Run is one run of one scenario. Faults and phases use what it exports.
type Run struct {
	Lab    *topology.Lab
	Client *client.Client
	Rand   *rand.Rand

	cfg     Config
	s       Scenario
	state   topology.State
	watch   *watcher
	res     Result
	primary string // when the fault strikes
	strikes []Strike
	past    []api.Failover // as asked for at the end
	started time.Time
	resume  func()         // the load, if a phase paused it
	cleanup []func() error // of phases, after the fault was mended
	tail    *tail          // what was lost with the primary, in async
}

// The bounds of a run's parts. They are for a cluster that does wrong: one that does right needs far less.
const (
	toStart  = 60 * time.Second
	toBite   = 10 * time.Second
	toHeal   = 90 * time.Second
	toStop   = 60 * time.Second
	toJudge  = 60 * time.Second
	within   = 15 * time.Second
	warmUp   = 40 // answers of each data node's primary before the fault
	afterAll = 40 // and after the mending
)

// WaitHealthy waits until the volume of a lab is served and every replica is a member.
func WaitHealthy(ctx context.Context, l *topology.Lab) error {
	state, err := l.State()
	if err != nil {
		return err
	}
	r := &Run{Lab: l, state: state, watch: newWatcher(l, state.Daemons())}
	watching, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { r.watch.run(watching) })
	defer background.Wait()
	defer stop()
	if err = r.healthy(ctx, toStart); err != nil {
		return errors.Join(err, r.allRun())
	}
	return nil
}

// Do runs a scenario and judges it.
func Do(ctx context.Context, s Scenario, cfg Config) (Result, Evidence) {
	r := &Run{cfg: cfg, s: s, Lab: cfg.Lab, started: time.Now(), Rand: rand.New(rand.NewPCG(cfg.Seed, 7))}
	r.res = Result{Scenario: s.Name, Covers: s.Covers, Expected: s.Expect.Service, Verdict: Passed, OutageMs: -1, Errors: map[string]int{}}
	err := r.run(ctx)
	if err != nil {
		var b *brokenError
		if errors.As(err, &b) {
			r.res.broken(err.Error())
		} else {
			r.res.fail(err.Error())
		}
	}
	r.res.DurationSec = time.Since(r.started).Seconds()
	return r.res, r.evidence()
}

// Evidence is what the judgement rests on.
type Evidence struct {
	Record   client.Record    `json:"record"`
	Timeline []View           `json:"timeline"`
	Tenures  []history.Tenure `json:"tenures"`
	Strikes  []Strike         `json:"strikes"`
}

func (r *Run) evidence() Evidence {
	e := Evidence{Strikes: r.strikes}
	if r.Client != nil {
		e.Record = r.Client.Record()
	}
	if r.watch != nil {
		e.Timeline, e.Tenures, _ = r.watch.timeline()
	}
	return e
}

// brokenError: the laboratory failed, not the cluster.
type brokenError struct{ error }

func broken(what string, err error) error {
	if err == nil {
		return nil
	}
	return &brokenError{fmt.Errorf("%s: %w", what, err)}
}

func (r *Run) run(ctx context.Context) (err error) {
	if r.state, err = r.Lab.State(); err != nil {
		return broken("the lab", err)
	}
	r.watch = newWatcher(r.Lab, r.state.Daemons())
	r.Client = client.New(client.Config{Servers: r.servers(), TLS: r.cfg.TLS, FUA: r.s.FUA, Think: r.s.Think})
	watching, stopWatching := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { r.watch.run(watching) })
	defer background.Wait()
	defer stopWatching()
	if err := r.Lab.Start(); err != nil {
		return broken("start", err)
	}
	if err := r.healthy(ctx, toStart); err != nil {
		return errors.Join(fmt.Errorf("after the first start: %w", err), r.allRun())
	}
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		r.Client.Run(loading)
	}()
	err = r.story(ctx)
	stopLoad()
	<-loaded
	if err != nil {
		return err
	}
	return r.afterwards(ctx, stopWatching)
}

// allRun tells of daemons that ended by themselves: the lab or the configuration is at fault then.
func (r *Run) allRun() error {
	for _, n := range r.state.Daemons() {
		if ids, err := r.Lab.Pids(n); err != nil || len(ids) == 0 {
			log, _ := os.ReadFile(r.Lab.Log(n))
			return broken(n, errors.Join(err, fmt.Errorf("its daemon ended: %s", bytes.TrimSpace(log[max(len(log)-500, 0):]))))
		}
	}
	return nil
}

// servers are the places where clients look for the volume.
func (r *Run) servers() (all []client.Server) {
	scheme := "nbds"
	if r.state.Config.Plain {
		scheme = "nbd"
	}
	for i := range r.state.Nodes {
		if n := &r.state.Nodes[i]; n.Role == topology.Data {
			uri := fmt.Sprintf("%s://%s:%d/%s", scheme, r.state.Address(n, topology.Replication), topology.NBDPort, topology.Volume)
			all = append(all, client.Server{Node: n.Name, URI: uri})
		}
	}
	return all
}

// story is what happens under load.
func (r *Run) story(ctx context.Context) error {
	if err := r.answers(ctx, "", warmUp, within); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	// Leadership leaves the primary's node soon after the start. Whoever takes it counts a whole lease from nothing (R10), so
	// that a pause of the machine would show as the fault's doing.
	rests := within + 2*r.target() // a young leader stays for two leases, each shorter than the RTO target
	resting, cancel := context.WithTimeout(ctx, rests)
	_, err := r.watch.until(resting, func(v View) bool { return v.Leader != "" && v.Leader != v.Primary })
	cancel()
	if err != nil {
		return fmt.Errorf("before the fault: the primary's node leads the Raft group for %v: %w", rests, err)
	}
	if r.s.Series == nil {
		return r.strike(ctx, r.s)
	}
	for next := r.s.Series(r); ; {
		s, more := next()
		if !more {
			return nil
		}
		if err := r.strike(ctx, s); err != nil {
			return fmt.Errorf("strike %d, %s: %w", len(r.strikes), s.Name, err)
		}
	}
}

// Strike is one fault of a run.
type Strike struct {
	Name   string        `json:"name"`
	At     time.Duration `json:"at"`     // just before it was injected
	Struck time.Duration `json:"struck"` // when it was seen to bite
	Mended time.Duration `json:"mended"`
	Proof  string        `json:"proof"`
	HealMs int64         `json:"heal_ms"`
	// Degraded: on a busy machine, the standby was dropped between the last look and the fault. A series goes on then; the
	// volume has to suspend and come back.
	Degraded bool `json:"degraded"`
	expect   Expect
}

// strike lets one fault strike, and waits until all is well again.
func (r *Run) strike(ctx context.Context, s Scenario) error {
	if s.Phase != nil {
		if err := s.Phase(ctx, r); err != nil {
			return broken("the phase before the fault", err)
		}
	}
	before, err := r.watch.until(ctx, func(v View) bool { return v.Primary != "" })
	if err != nil {
		return err
	}
	r.primary = before.Primary
	r.cfg.Log.Info("the fault strikes", "scenario", s.Name, "primary", r.primary, "epoch", before.Epoch)
	r.strikes = append(r.strikes, Strike{Name: s.Name, At: history.Clock(), expect: s.Expect})
	k := &r.strikes[len(r.strikes)-1]
	in, err := s.Fault(ctx, r)
	var expected error
	if err != nil {
		if expected = broken("inject the fault", err); !r.leftAlone(s, before) {
			return expected
		}
		k.Struck = history.Clock()
	} else {
		expected = r.during(ctx, s, in, k)
	}
	k.Mended = history.Clock()
	if !s.Lies {
		r.claims(ctx, s.Name+", before it is mended")
	}
	if expected != nil && r.leftAlone(s, before) {
		r.cfg.Log.Warn("the standby had just been dropped: nobody could take over", "scenario", s.Name, "epoch", before.Epoch)
		expected, k.expect.Service, k.Degraded = nil, Suspends, true
		r.res.Degraded++
	}
	r.cfg.Log.Info("the fault is mended", "scenario", s.Name, "proof", k.Proof)
	if err := errors.Join(in.mend(ctx), r.clean()); err != nil {
		return errors.Join(expected, broken("mend the fault", err))
	}
	if expected != nil {
		r.res.Reasons = append(r.res.Reasons, r.lastSaid())
		return expected
	}
	began := history.Clock()
	if !s.Lies {
		r.claims(ctx, s.Name+", just mended")
	}
	if err := r.healthy(ctx, toHeal); err != nil {
		return fmt.Errorf("after the fault was mended: %w", err)
	}
	k.HealMs = ms(history.Clock() - began)
	r.claims(ctx, s.Name+", healthy again")
	return r.answers(ctx, "", afterAll, within)
}

// leftAlone: in a series, the standby was dropped while a fault was being injected that was to move the role.
func (r *Run) leftAlone(s Scenario, before View) bool {
	now := r.watch.present()
	return r.s.Series != nil && s.Expect.Service == Moves && now.Epoch == before.Epoch && slices.Equal(now.InSync, []string{r.primary})
}

// during proves that the fault bites and waits for what is expected of the service, for Hold at least.
func (r *Run) during(ctx context.Context, s Scenario, in Injected, k *Strike) (err error) {
	held := time.NewTimer(s.Hold)
	defer held.Stop()
	k.Proof, err = r.bites(ctx, in)
	k.Struck = history.Clock()
	if r.resume != nil {
		r.resume()
		r.resume = nil
	}
	if err != nil {
		return err
	}
	limit := s.Expect.within()
	switch s.Expect.Service {
	case GoesOn:
		err = r.answers(ctx, r.primary, afterAll, limit)
	case Moves:
		err = r.answers(ctx, r.Other(r.primary), afterAll, limit)
	case Survives:
		err = r.answers(ctx, "", afterAll, limit)
	case Suspends, Waits, Unseen: // judged by the record
	}
	if err != nil {
		return fmt.Errorf("the service %s: %w", s.Expect.Service, err)
	}
	select {
	case <-held.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch s.Expect.Service {
	case GoesOn:
		return r.answers(ctx, r.primary, 1, limit)
	case Moves, Survives:
		return r.answers(ctx, "", 1, limit)
	}
	return nil
}

func (e Expect) within() time.Duration {
	if e.Within == 0 {
		return within
	}
	return e.Within
}

func (r *Run) bites(ctx context.Context, in Injected) (proof string, err error) {
	if in.Bites == nil {
		return "", broken("the fault", errors.New("it has no proof"))
	}
	ctx, cancel := context.WithTimeout(ctx, toBite)
	defer cancel()
	for {
		proof, ok, err := in.Bites()
		if err != nil {
			return proof, broken("prove the fault", err)
		}
		if ok {
			return proof, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return proof, broken("the fault", errors.New("it was injected and does not bite: "+proof))
		}
	}
}

// answers waits for n answers, one after the other, to what was sent from now on.
func (r *Run) answers(ctx context.Context, server string, n int, limit time.Duration) error {
	for range n {
		ctx, cancel := context.WithTimeout(ctx, limit)
		err := r.Client.WaitAnswer(ctx, server, history.Clock())
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// healthy waits until every replica is a member and the volume is served.
func (r *Run) healthy(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := r.watch.until(ctx, func(v View) bool { return v.State == api.VolumeHealthy && len(v.InSync) == len(r.Replicas()) }); err != nil {
		return fmt.Errorf("not healthy within %v: %s", limit, r.lastSaid())
	}
	return nil
}

func (r *Run) lastSaid() string {
	var all []string
	for _, v := range r.watch.said() {
		if v.Err != "" {
			all = append(all, v.Node+" does not answer")
			continue
		}
		all = append(all, fmt.Sprintf("%s says quorum %v, leader %q, epoch %d, primary %q, %s, in sync %v", v.Node, v.Quorum, v.Leader, v.Epoch, v.Primary, v.State, v.InSync))
	}
	return strings.Join(all, "; ")
}

// Primary is the node that leads the volume when the fault strikes.
func (r *Run) Primary() string { return r.primary }

// Standby is the other one.
func (r *Run) Standby() string { return r.Other(r.primary) }

// Witness is the first witness.
func (r *Run) Witness() string {
	i := slices.IndexFunc(r.state.Nodes, func(n topology.Node) bool { return n.Role == topology.Witness })
	return r.state.Nodes[i].Name
}

// All are the nodes that run daemons.
func (r *Run) All() []string { return r.state.Daemons() }

// Replicas are the nodes that have one.
func (r *Run) Replicas() (all []string) {
	for _, n := range r.state.Nodes {
		if n.Role == topology.Data {
			all = append(all, n.Name)
		}
	}
	return all
}

// Other is the first data node that is not this one.
func (r *Run) Other(node string) string {
	for _, n := range r.state.Nodes {
		if n.Role == topology.Data && n.Name != node {
			return n.Name
		}
	}
	return ""
}

package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hacluster/cmd/internal/lab/disk"
	"hacluster/cmd/internal/lab/topology"
	"hacluster/cmd/internal/lab/wire"
)

// Role names a node by what it is when the fault strikes.
type Role func(r *Run) string

// The roles.
var (
	P Role = (*Run).Primary
	S Role = (*Run).Standby
	W Role = (*Run).Witness
	C Role = func(*Run) string { return topology.ClientHost }
)

func names(r *Run, roles []Role) (all []string) {
	for _, role := range roles {
		all = append(all, role(r))
	}
	return all
}

// Kill ends nodes at once and starts them again when it is mended.
func Kill(roles ...Role) Fault {
	return func(_ context.Context, r *Run) (Injected, error) {
		nodes := names(r, roles)
		for _, n := range nodes {
			if err := r.Lab.Kill(n); err != nil {
				return Injected{}, err
			}
		}
		return Injected{
			Bites: func() (string, bool, error) {
				for _, n := range nodes {
					if ids, err := r.Lab.Pids(n); err != nil || len(ids) > 0 {
						return fmt.Sprintf("processes %v of %s run", ids, n), false, err
					}
				}
				return fmt.Sprintf("no process of %v is left", nodes), true, nil
			},
			Mend: func(context.Context) error { return r.Lab.Start(nodes...) },
		}, nil
	}
}

// Stop ends nodes in order and starts them again when it is mended.
func Stop(roles ...Role) Fault {
	kill := Kill(roles...)
	return func(ctx context.Context, r *Run) (Injected, error) {
		for _, n := range names(r, roles) {
			if err := r.Lab.Stop(n, toStop); err != nil {
				return Injected{}, err
			}
		}
		return kill(ctx, r) // nothing is left to kill: it proves that, and starts them again
	}
}

// Pause stops nodes as they stand.
func Pause(roles ...Role) Fault {
	return func(_ context.Context, r *Run) (Injected, error) {
		nodes := names(r, roles)
		for _, n := range nodes {
			if err := r.Lab.Pause(n); err != nil {
				return Injected{}, err
			}
		}
		return Injected{
			Bites: func() (string, bool, error) {
				for _, n := range nodes {
					if frozen, err := r.Lab.Frozen(n); err != nil || !frozen {
						return n + " is not in state T", false, err
					}
				}
				return fmt.Sprintf("every thread of %v is in state T", nodes), true, nil
			},
			Mend: func(context.Context) (err error) {
				for _, n := range nodes {
					err = errors.Join(err, r.Lab.Resume(n))
				}
				return err
			},
		}, nil
	}
}

// Lose puts rules in force. Each has to lose packets.
func Lose(rules func(r *Run) []topology.Rule) Fault { return lose(rules, every) }

func lose(rules func(r *Run) []topology.Rule, enough func(losing, rules int) bool) Fault {
	return func(_ context.Context, r *Run) (Injected, error) {
		all := rules(r)
		if err := r.Lab.Add(all...); err != nil {
			return Injected{}, err
		}
		return Injected{
			Bites: func() (string, bool, error) { return lost(r, all, enough) },
			Mend:  func(context.Context) error { return r.Lab.Remove(all...) },
		}, nil
	}
}

func every(losing, rules int) bool { return losing == rules }

// lost proves that rules lost packets.
func lost(r *Run, rules []topology.Rule, enough func(losing, rules int) bool) (proof string, ok bool, err error) {
	losing := 0
	for _, rule := range rules {
		n, err := r.Lab.Dropped(rule.From, rule.To)
		if err != nil {
			return proof, false, err
		}
		if proof != "" {
			proof += ", "
		}
		proof += fmt.Sprintf("%v lost %d packets", rule, n)
		if n > 0 {
			losing++
		}
	}
	return proof, enough(losing, len(rules)), nil
}

// Cut loses everything between a and each of the others, on one network or, with "", on all.
func Cut(network string, a Role, others ...Role) Fault {
	return Lose(cutRules(network, a, others...))
}

func cutRules(network string, a Role, others ...Role) func(r *Run) []topology.Rule {
	return func(r *Run) (all []topology.Rule) {
		for _, b := range others {
			all = append(all, topology.Cut(a(r), b(r), network)...)
		}
		return all
	}
}

// OneWay loses one direction.
func OneWay(network string, from, to Role) Fault {
	return Lose(func(r *Run) []topology.Rule { return topology.OneWay(from(r), to(r), network) })
}

// Lossy loses some packets between all nodes.
func Lossy(percent int) Fault {
	return Lose(func(r *Run) (all []topology.Rule) {
		nodes := r.All()
		for i, a := range nodes {
			for _, b := range nodes[i+1:] {
				all = append(all, topology.Lossy(a, b, "", percent)...)
			}
		}
		return all
	})
}

// Flap cuts and heals in turn until it is mended.
func Flap(on, off time.Duration, a, b Role) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		rules := topology.Cut(a(r), b(r), "")
		flapping, stop := context.WithCancel(ctx)
		var done sync.WaitGroup
		var err error
		done.Go(func() { err = r.Lab.Flap(flapping, rules, on, off) })
		var seen string
		return Injected{
			Bites: func() (string, bool, error) {
				proof, ok, err := lost(r, rules, every)
				if err != nil { // between two cuts there are no rules
					return proof, false, nil
				}
				seen = proof
				return seen, ok, nil
			},
			Mend: func(context.Context) error {
				stop()
				done.Wait()
				return err
			},
		}, nil
	}
}

// Slow limits the rate of what a node sends into the replication network.
func Slow(rate string, role Role) Fault {
	return func(_ context.Context, r *Run) (Injected, error) {
		sh := topology.Shape{Node: role(r), Network: topology.Replication, Rate: rate}
		if err := r.Lab.Slow(sh); err != nil {
			return Injected{}, err
		}
		return Injected{
			Bites: func() (string, bool, error) {
				n, err := r.Lab.Held(sh)
				return fmt.Sprintf("%d packets of %s had to wait for %s", n, sh.Node, rate), n > 0, err
			},
			Mend: func(context.Context) error { return r.Lab.Heal() },
		}, nil
	}
}

// PowerCut takes the power from nodes, all at once: what they had not flushed is lost, and they boot anew.
func PowerCut(mode disk.Mode, roles ...Role) Fault {
	kill := Kill(roles...)
	return func(ctx context.Context, r *Run) (Injected, error) {
		nodes := names(r, roles)
		lost, err := r.Lab.PowerCut(mode, r.Rand.Uint64(), nodes...)
		if err != nil {
			return Injected{}, err
		}
		in, err := kill(ctx, r) // nothing is left to kill: it proves that, and starts them again
		dead := in.Bites
		in.Bites = func() (string, bool, error) {
			proof, ok, err := dead()
			return fmt.Sprintf("%s, %d unflushed writes were lost (%s)", proof, lost, mode), ok && lost > 0, err
		}
		return in, err
	}
}

// Disk harms a part of a node's disk. When a disk that failed or hung is mended, its daemon is started again, as a person
// would do it; a slow one needs nobody.
func Disk(f disk.Fault, part string, role Role) Fault {
	return func(_ context.Context, r *Run) (Injected, error) {
		node := role(r)
		d, err := r.Lab.Disk(node)
		if err != nil {
			return Injected{}, err
		}
		if f.Glob, err = topology.DiskGlob(part); err != nil {
			return Injected{}, err
		}
		before, err := d.Bites(f.Kind)
		if err != nil {
			return Injected{}, err
		}
		return Injected{
			Bites: func() (string, bool, error) {
				n, err := d.Bites(f.Kind)
				return fmt.Sprintf("%d operations of %s met %v", n-before, node, f), n > before, err
			},
			Mend: func(context.Context) error {
				if f.Kind == disk.Slow {
					return d.Go()
				}
				return errors.Join(d.Go(), r.restart(node))
			},
		}, d.Fault(f)
	}
}

func (r *Run) restart(node string) error {
	if err := r.Lab.Stop(node, 10*time.Second); err != nil {
		if err := r.Lab.Kill(node); err != nil {
			return err
		}
	}
	return r.Lab.Start(node)
}

// Rewire gives the replication cable of a node a bad character; done counts in its statistics what proves it.
func Rewire(c wire.Config, done func(wire.Stats) uint64, role Role) Fault {
	return func(_ context.Context, r *Run) (Injected, error) {
		node := role(r)
		c.Seed = r.Rand.Uint64()
		if err := r.Lab.Rewire(node, topology.Replication, c); err != nil {
			return Injected{}, err
		}
		return Injected{
			Bites: func() (string, bool, error) {
				s, err := r.Lab.WireStats(node, topology.Replication)
				return fmt.Sprintf("the cable of %s did %+v", node, s), done(s) > 0, err
			},
			Mend: func(context.Context) error { return r.Lab.Heal() },
		}, nil
	}
}

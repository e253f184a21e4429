package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
)

// Shape limits the rate of what a node sends into a network.
type Shape struct {
	Node, Network string
	Rate          string // of tc: "1mbit"
}

// Add puts rules in force beside those that are.
func (l *Lab) Add(rules ...Rule) error {
	return l.update(func(s *State) error {
		for _, r := range rules {
			if err := r.check(s); err != nil {
				return err
			}
		}
		s.Rules = append(s.Rules, rules...)
		return l.apply(s, rules)
	})
}

// Remove takes rules away, so that what they lost goes through again.
func (l *Lab) Remove(rules ...Rule) error {
	return l.update(func(s *State) error {
		s.Rules = slices.DeleteFunc(s.Rules, func(r Rule) bool { return slices.Contains(rules, r) })
		return l.apply(s, rules)
	})
}

// apply gives the kernel the rules of each node that the changed ones concern, of all nodes at once: one after the other,
// on a busy machine, a node would be cut off from one and drop it, while it still reaches another, and only then be alone.
func (l *Lab) apply(s *State, changed []Rule) error {
	var nodes []string
	for _, r := range changed {
		if !slices.Contains(nodes, r.To) {
			nodes = append(nodes, r.To)
		}
	}
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = runWith(s.ruleset(n), "nsenter", "--net="+l.netns(n), "nft", "-f", "-") })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Dropped counts the packets of a node that were lost on their arrival at another, since the rules there last changed.
func (l *Lab) Dropped(from, to string) (n uint64, err error) {
	cmd := exec.Command("nsenter", "--net="+l.netns(to), "nft", "-j", "list", "chain", "inet", "lab", "in")
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("list the rules of %s: %w", to, err)
	}
	var list struct {
		Nftables []struct {
			Rule *struct {
				Comment string
				Expr    []struct{ Counter *struct{ Packets uint64 } }
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return 0, fmt.Errorf("list the rules of %s: %w", to, err)
	}
	for _, e := range list.Nftables {
		if e.Rule == nil || e.Rule.Comment != from {
			continue
		}
		for _, x := range e.Rule.Expr {
			if x.Counter != nil {
				n += x.Counter.Packets
			}
		}
	}
	return n, nil
}

// Slow limits the rate of what a node sends into a network.
func (l *Lab) Slow(sh Shape) error {
	return l.update(func(s *State) error {
		n, err := s.Node(sh.Node)
		if err != nil {
			return err
		}
		if !slices.Contains(n.On(), sh.Network) {
			return fmt.Errorf("%s is on the networks %v, not on %q", sh.Node, n.On(), sh.Network)
		}
		s.Shapes = append(s.Shapes, sh)
		return run("nsenter", "--net="+l.netns(sh.Node), "tc", "qdisc", "replace", "dev", sh.Network, "root", "tbf",
			"rate", sh.Rate, "burst", "16kb", "latency", "400ms")
	})
}

// Held counts the packets that had to wait for the rate of a Shape, or were lost to it.
func (l *Lab) Held(sh Shape) (n uint64, err error) {
	out, err := exec.Command("nsenter", "--net="+l.netns(sh.Node), "tc", "-s", "-j", "qdisc", "show", "dev", sh.Network).Output()
	if err != nil {
		return 0, fmt.Errorf("ask for the queue of %s: %w", sh.Node, err)
	}
	var qs []struct{ Overlimits, Drops uint64 }
	if err := json.Unmarshal(out, &qs); err != nil {
		return 0, fmt.Errorf("ask for the queue of %s: %w", sh.Node, err)
	}
	for _, q := range qs {
		n += q.Overlimits + q.Drops
	}
	return n, nil
}

// Heal undoes every fault of the network.
func (l *Lab) Heal() error {
	return l.update(func(s *State) error {
		rules, shapes := s.Rules, s.Shapes
		s.Rules, s.Shapes = nil, nil
		err := l.apply(s, rules)
		for _, sh := range shapes {
			e := run("nsenter", "--net="+l.netns(sh.Node), "tc", "qdisc", "del", "dev", sh.Network, "root")
			if e != nil && !strings.Contains(e.Error(), "Cannot delete qdisc with handle of zero") { // deleted by an equal shape
				err = errors.Join(err, e)
			}
		}
		return errors.Join(err, l.unwire(s))
	})
}

// Thaw undoes whatever makes processes stand still: it sends SIGCONT to all, and lets hung disks go on.
func (l *Lab) Thaw() error {
	s, err := l.State()
	if err != nil {
		return err
	}
	for _, name := range s.Daemons() {
		if ids, e := l.Pids(name); e == nil && len(ids) > 0 {
			err = errors.Join(err, l.Resume(name))
		}
	}
	return errors.Join(err, l.releaseDisks(&s))
}

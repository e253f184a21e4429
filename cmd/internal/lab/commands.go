package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"hacluster/cmd/internal/lab/scenario"
	"hacluster/cmd/internal/lab/topology"
)

// order is that of the help text.
var order = []string{"up", "down", "status", "start", "stop", "exec", "kill", "pause", "resume",
	"cut", "oneway", "loss", "flap", "slow", "delay", "reorder", "powercut", "disk", "heal", "list", "run", "matrix", "matrix-ci", "soak", "failovers", "doubles", "mutants"}

func commands() map[string]command {
	return map[string]command{
		"up":        {"[--disks] [--witnesses N] [--plain]", "make a lab, start its daemons, wait until they serve", up},
		"down":      {"", "end everything of a lab and remove it, also what a crash left of one", down},
		"status":    {"", "what labs there are, and how the nodes and faults of this one stand", status},
		"start":     {"[NODE...]", "start daemons", each(func(l *topology.Lab, n string) error { return l.Start(n) })},
		"stop":      {"[NODE...]", "stop daemons in order (SIGTERM)", each(func(l *topology.Lab, n string) error { return l.Stop(n, 30*time.Second) })},
		"exec":      {"NODE COMMAND...", "run a command as on a node", inside},
		"kill":      {"NODE...", "end all processes of a node (SIGKILL)", each((*topology.Lab).Kill)},
		"pause":     {"NODE...", "stop all processes of a node as they stand (SIGSTOP)", each((*topology.Lab).Pause)},
		"resume":    {"NODE...", "let them go on (SIGCONT)", each((*topology.Lab).Resume)},
		"cut":       {"A B [--link NETWORK] [--port N]", "lose every packet between two nodes", pair(topology.Cut)},
		"oneway":    {"FROM TO [--link NETWORK] [--port N]", "lose every packet of one direction", pair(topology.OneWay)},
		"loss":      {"A B PERCENT [--link NETWORK]", "lose some packets between two nodes", loss},
		"flap":      {"A B [--link NETWORK] [--on 1s] [--off 1s] [--for 10s]", "cut and heal in turn; returns when it is over", flap},
		"slow":      {"NODE RATE [--link NETWORK]", "limit what a node sends into a network (default repl), such as 1mbit", slow},
		"powercut":  {"NODE [SEED] [--mode drop|random|torn]", "end all processes of a node, lose what was not flushed, boot anew at its next start", powercut},
		"disk":      {"NODE PART eio|enospc|slow MS|busy MS|hang|lie|rot OFFSET LENGTH|go [--op read|write|flush]", "harm the disk of a node; PART is vol, meta, raft or all", harm},
		"list":      {"", "the scenarios", list},
		"run":       {"SCENARIO... [--out DIR] [--seed N] [--keep]", "run scenarios, each in a lab of its own, and judge; --keep leaves that lab up", runCommand},
		"matrix":    {"[--out DIR] [--seed N]", "run all scenarios", matrix(false)},
		"matrix-ci": {"[--out DIR] [--seed N]", "run the most telling scenarios", matrix(true)},
		"soak":      {"[--minutes N] [--seed N] [--out DIR]", "random faults in one cluster; the seed gives their order", soak},
		"failovers": {"[--count N] [--seed N] [--out DIR]", "failovers in a row: kill, pause, cut and power cut in turn", failovers},
		"doubles":   {"[--count N] [--seed N] [--out DIR]", "two of three replicas fail, one after the other, in COUNT ways drawn at random", doubles},
		"mutants":   {"[MUTANT...] [--tries N] [--seed N] [--out DIR]", "build daemons that break one rule each, and run the scenarios that must notice", runMutants},
		// Called by the program itself.
		"cell":    {"SCENARIO --lab NAME", "the inner half of a run, on the clients' host", cell},
		"guard":   {"--lab NAME --for LIMIT", "the watchdog of a run", guard},
		"delay":   {"NODE DELAY [--jitter 10ms] [--link NETWORK]", "delay what goes through a node's cable (default repl), in both directions", delay},
		"reorder": {"NODE PERCENT [--delay 20ms] [--double PERCENT] [--link NETWORK]", "let some frames overtake the others, which are delayed; let some arrive twice", reorder},
		"wire":    {"INTERFACE INTERFACE STATS CHARACTER", "the process of a delayed cable", carry},
		"heal":    {"", "undo every fault of the network, let what is paused or hung go on", heal},
	}
}

func up(ctx context.Context, c *call) error {
	if err := c.want(); err != nil {
		return err
	}
	if err := topology.Permitted(); err != nil {
		return notPermitted{err}
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	l, err := topology.Up(c.lab, cfg)
	if err != nil {
		return err
	}
	if err := l.Start(); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "lab %s is up: its files are in %s\n", l.Name, l.Dir)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return scenario.WaitHealthy(ctx, l)
}

func down(_ context.Context, c *call) error {
	l, err := topology.Find(c.lab)
	if err != nil {
		return err
	}
	return l.Down()
}

func status(_ context.Context, c *call) error {
	labs, err := topology.Labs()
	if err != nil {
		return err
	}
	if len(labs) == 0 {
		fmt.Fprintln(c.stdout, "there is no lab")
		return nil
	}
	for _, name := range labs {
		if err := show(c, name); err != nil {
			return err
		}
	}
	return nil
}

func show(c *call, name string) error {
	l, err := topology.Open(name)
	if err != nil {
		fmt.Fprintf(c.stdout, "lab %s: only parts are left of it; remove them: lab down --lab %s\n", name, name)
		return nil
	}
	s, err := l.State()
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "lab %s in %s\n", name, l.Dir)
	w := tabwriter.NewWriter(c.stdout, 2, 0, 2, ' ', 0)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		ids, err := l.Pids(n.Name)
		state := fmt.Sprintf("runs %v", ids)
		frozen, ferr := l.Frozen(n.Name)
		switch {
		case errors.Join(err, ferr) != nil:
			state = fmt.Sprintf("gone: %v", errors.Join(err, ferr))
		case len(ids) == 0:
			state = "does not run"
		case frozen:
			state = fmt.Sprintf("paused %v", ids)
		}
		fmt.Fprintf(w, "  %s\t%s\t", n.Name, n.Role)
		for _, net := range n.On() {
			fmt.Fprintf(w, "%s %s\t", net, s.Address(n, net))
		}
		fmt.Fprintf(w, "%s\n", state)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range s.Rules {
		n, err := l.Dropped(r.From, r.To)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "  lost: %v (%d packets so far)\n", r, n)
	}
	for _, sh := range s.Shapes {
		fmt.Fprintf(c.stdout, "  slow: %s sends %s into %s\n", sh.Node, sh.Rate, sh.Network)
	}
	for _, w := range s.Wires {
		st, err := l.WireStats(w.Node, w.Network)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "  wire: %s to %s, %+v, did %+v\n", w.Node, w.Network, w.Character, st)
	}
	return nil
}

func inside(_ context.Context, c *call) error {
	if err := c.want("NODE", "COMMAND..."); err != nil {
		return err
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	return l.Exec(c.words[0], c.words[1:]...)
}

// each is a command about nodes.
func each(do func(l *topology.Lab, node string) error) func(context.Context, *call) error {
	return func(_ context.Context, c *call) error {
		l, err := c.open()
		if err != nil {
			return err
		}
		s, err := l.State()
		if err != nil {
			return err
		}
		if len(c.words) == 0 {
			c.words = s.Daemons()
		}
		for _, n := range c.words {
			if !slices.Contains(s.Daemons(), n) {
				return fmt.Errorf("%w: %q runs no daemon, %v do", errUsage, n, s.Daemons())
			}
			if err := do(l, n); err != nil {
				return err
			}
		}
		return nil
	}
}

// pair is a command about two nodes.
func pair(rules func(a, b, network string) []topology.Rule) func(context.Context, *call) error {
	return func(_ context.Context, c *call) error {
		if err := c.want("A", "B"); err != nil {
			return err
		}
		l, err := c.open()
		if err != nil {
			return err
		}
		all := rules(c.words[0], c.words[1], c.link)
		for i := range all {
			all[i].Port = c.port
		}
		return l.Add(all...)
	}
}

func loss(_ context.Context, c *call) error {
	if err := c.want("A", "B", "PERCENT"); err != nil {
		return err
	}
	percent, err := c.number(2, "%")
	if err != nil {
		return err
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	return l.Add(topology.Lossy(c.words[0], c.words[1], c.link, percent)...)
}

func flap(ctx context.Context, c *call) error {
	if err := c.want("A", "B"); err != nil {
		return err
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.lasts)
	defer cancel()
	return l.Flap(ctx, topology.Cut(c.words[0], c.words[1], c.link), c.on, c.off)
}

func slow(_ context.Context, c *call) error {
	if err := c.want("NODE", "RATE"); err != nil {
		return err
	}
	if c.link == "" {
		c.link = topology.Replication
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	return l.Slow(topology.Shape{Node: c.words[0], Network: c.link, Rate: c.words[1]})
}

func heal(_ context.Context, c *call) error {
	l, err := c.open()
	if err != nil {
		return err
	}
	return errors.Join(l.Heal(), l.Thaw())
}

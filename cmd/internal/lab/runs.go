package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"hacluster/cmd/internal/lab/scenario"
	"hacluster/cmd/internal/lab/topology"
	"hacluster/cmd/internal/lab/wallclock"
)

// cellLimit bounds one run beside the time for which its fault holds.
const cellLimit = 5 * time.Minute

// matrixLasts is the longest phase of a run of the matrix.
const matrixLasts = 5 * time.Minute

// runCommand runs the scenarios that are named.
func runCommand(ctx context.Context, c *call) error {
	if err := c.want("SCENARIO..."); err != nil {
		return err
	}
	var all []scenario.Scenario
	for _, name := range c.words {
		s, ok := scenario.Find(name)
		if !ok {
			return fmt.Errorf("%w: there is no scenario %q: lab list shows them", errUsage, name)
		}
		all = append(all, s)
	}
	return runAll(ctx, c, all)
}

// matrix runs all scenarios, or the most telling ones.
func matrix(ci bool) func(context.Context, *call) error {
	return func(ctx context.Context, c *call) error {
		if err := c.want(); err != nil {
			return err
		}
		var all []scenario.Scenario
		for _, s := range scenario.Table() {
			switch {
			case ci && !s.CI:
			case s.Lasts > matrixLasts:
				fmt.Fprintf(c.stdout, "left out: %s: it lasts %v; lab run %s runs it\n", s.Name, s.Lasts, s.Name)
			default:
				all = append(all, s)
			}
		}
		return runAll(ctx, c, all)
	}
}

// soak, failovers and doubles are series of faults in one cluster.
func soak(ctx context.Context, c *call) error {
	if err := c.want(); err != nil {
		return err
	}
	return runAll(ctx, c, []scenario.Scenario{scenario.Soak(time.Duration(c.minutes) * time.Minute)})
}

func failovers(ctx context.Context, c *call) error {
	if err := c.want(); err != nil {
		return err
	}
	return runAll(ctx, c, []scenario.Scenario{scenario.Failovers(c.count)})
}

func doubles(ctx context.Context, c *call) error {
	if err := c.want(); err != nil {
		return err
	}
	return runAll(ctx, c, []scenario.Scenario{scenario.Doubles(c.count)})
}

// find looks up what the inner half of a run is to do.
func (c *call) find(name string) (scenario.Scenario, bool) {
	switch name {
	case "soak":
		return scenario.Soak(time.Duration(c.minutes) * time.Minute), true
	case "failovers":
		return scenario.Failovers(c.count), true
	case "doubles":
		return scenario.Doubles(c.count), true
	}
	return scenario.Find(name)
}

func list(_ context.Context, c *call) error {
	for _, s := range scenario.Table() {
		ci := ""
		if s.CI {
			ci = " (matrix-ci)"
		}
		fmt.Fprintf(c.stdout, "%-26s %-10s service %s: %s%s\n", s.Name, s.Covers, s.Expect.Service, s.What, ci)
	}
	return nil
}

// errNotPassed: the table tells which and why.
var errNotPassed = errors.New("not every run passed")

func runAll(ctx context.Context, c *call, all []scenario.Scenario) error {
	if err := topology.Permitted(); err != nil {
		return notPermitted{err}
	}
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	fmt.Fprintf(c.stdout, "seed %d\n", c.seed)
	began := time.Now()
	var results []scenario.Result
	for i, s := range all {
		if ctx.Err() != nil {
			break
		}
		r := runOne(ctx, c, s, c.seed+uint64(i))
		results = append(results, r)
		fmt.Fprintln(c.stdout, r.Line())
	}
	fmt.Fprintf(c.stdout, "\n%s\n%d runs in %v\n", scenario.Markdown(results), len(results), time.Since(began).Round(time.Second))
	if c.out != "" {
		if err := writeResults(c.out, results); err != nil {
			return err
		}
	}
	for _, r := range results {
		if r.Verdict != scenario.Passed {
			return errNotPassed
		}
	}
	return ctx.Err()
}

func writeResults(dir string, results []scenario.Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(results, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "results.json"), b, 0o644),
		os.WriteFile(filepath.Join(dir, "results.md"), []byte(scenario.Markdown(results)), 0o644))
}

// runOne makes a lab, runs one scenario in it, and removes it.
func runOne(ctx context.Context, c *call, s scenario.Scenario, seed uint64) scenario.Result {
	broken := func(err error) scenario.Result {
		return scenario.Result{Scenario: s.Name, Covers: s.Covers, Expected: s.Expect.Service, Verdict: scenario.Broken, Reasons: []string{err.Error()}}
	}
	name := "run-" + strconv.Itoa(os.Getpid())
	if c.lab != defaultLab {
		name = c.lab
	}
	limit := cellLimit + 2*(s.Hold+s.Lasts)
	if s.Series != nil {
		limit += 2*time.Duration(c.minutes)*time.Minute + time.Duration(c.count)*20*time.Second
	}
	dog, err := guardLab(name, limit+time.Minute)
	if err != nil {
		return broken(err)
	}
	r, err := inLab(ctx, c, s, name, seed, limit)
	if err != nil {
		r = broken(err)
	}
	if r.Verdict != scenario.Passed || r.Late > 0 {
		keepFiles(c, name, s)
	}
	if !c.keep {
		if l, err := topology.Find(name); err == nil {
			if err := errors.Join(ignoreGone(l.Thaw()), l.Down()); err != nil {
				r.Verdict, r.Reasons = scenario.Broken, append(r.Reasons, err.Error())
			}
		}
	}
	if err := dog.end(c.keep); err != nil {
		r.Verdict, r.Reasons = scenario.Broken, append(r.Reasons, "the watchdog: "+err.Error())
	}
	return r
}

// inLab makes the lab and runs the scenario in a process of its own, on the clients' host.
func inLab(ctx context.Context, c *call, s scenario.Scenario, name string, seed uint64, limit time.Duration) (r scenario.Result, err error) {
	cfg, err := c.config()
	if err != nil {
		return r, err
	}
	cfg.RTO, cfg.Mode, cfg.Copies, cfg.Extra, cfg.Link, cfg.Disks, cfg.Clocks = s.RTO, s.Mode, s.Copies, s.Extra, s.Link, s.Disks, s.Clocks
	if s.Clocks {
		if cfg.Bin, err = steppable(ctx, cfg.Bin); err != nil {
			return r, err
		}
	}
	l, err := topology.Up(name, cfg)
	if err != nil {
		return r, err
	}
	cmd := l.Network(topology.ClientHost, filepath.Join(cfg.Tools, "lab"), "cell", "--lab", name, "--seed", strconv.FormatUint(seed, 10),
		"--minutes", strconv.Itoa(c.minutes), "--count", strconv.Itoa(c.count), s.Name)
	var out, logs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &logs
	if s.Series != nil { // it takes long: show how it goes
		cmd.Stderr = io.MultiWriter(&logs, c.stderr)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := cmd.Start(); err != nil {
		return r, err
	}
	unhook := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	unhook()
	if err := os.WriteFile(filepath.Join(l.Dir, "cell.log"), logs.Bytes(), 0o644); err != nil {
		return r, err
	}
	if err != nil {
		return r, fmt.Errorf("the run ended early: %w (%v): %s", err, ctx.Err(), tail(logs.Bytes(), 2000))
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// steppable makes a folder beside the programs, with a daemon whose clock can be stepped. Go keeps what it has built.
func steppable(ctx context.Context, bin string) (dir string, err error) {
	dir = filepath.Join(bin, "steppable")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.Symlink(filepath.Join("..", "ha-admin"), filepath.Join(dir, "ha-admin")); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, wallclock.Build(ctx, dir)
}

func tail(b []byte, n int) []byte { return bytes.TrimSpace(b[max(len(b)-n, 0):]) }

// cell is the inner half of a run.
func cell(ctx context.Context, c *call) error {
	if err := c.want("SCENARIO"); err != nil {
		return err
	}
	s, ok := c.find(c.words[0])
	if !ok {
		return fmt.Errorf("%w: there is no scenario %q", errUsage, c.words[0])
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	t, err := clientTLS(l)
	if err != nil {
		return err
	}
	r, evidence := scenario.Do(ctx, s, scenario.Config{Lab: l, TLS: t, Seed: c.seed, Log: slog.New(slog.NewTextHandler(c.stderr, nil))})
	b, err := json.Marshal(evidence)
	if err == nil {
		err = os.WriteFile(filepath.Join(l.Dir, "evidence.json"), b, 0o644)
	}
	return errors.Join(err, json.NewEncoder(c.stdout).Encode(r))
}

// keepFiles copies what a run left to the results' folder: logs, configuration, record and timeline.
func keepFiles(c *call, lab string, s scenario.Scenario) {
	l, err := topology.Find(lab)
	if c.out == "" || err != nil {
		return
	}
	dir := filepath.Join(c.out, s.Name)
	_ = os.MkdirAll(dir, 0o755)
	for _, pattern := range []string{"*.log", "*.json", "*.hcl"} {
		files, _ := filepath.Glob(filepath.Join(l.Dir, pattern)) // the pattern is a good one
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil {
				err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o644)
				if err != nil {
					fmt.Fprintln(c.stderr, "lab:", err)
				}
			}
		}
	}
}

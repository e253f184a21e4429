package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hacluster/cmd/internal/lab/scenario"
	"hacluster/cmd/internal/lab/topology"
)

// mutant is a daemon that breaks one rule of the protocol, built with the tag of that name, and the scenarios that are
// there to notice. What they say of it is the proof that what they say of the daemon means something.
type mutant struct {
	tag   string
	rule  string
	what  string
	cells []string
}

var mutants = []mutant{
	{"mutate_ack_early", "(R3 R4)", "the primary acknowledges a write before the standby has it", []string{"cut-primary"}},
	{"mutate_standby_flush", "(R20)", "the standby answers a flush before its disk has it", []string{"power-all-standby"}},
	{"mutate_lease_unchecked", "(R11)", "the lease is not held against the clock before a reply", []string{"cut-primary"}},
	{"mutate_pause_uncounted", "(R8 R11)", "a paused primary goes on with its lease after SIGCONT", []string{"awakened-alone"}},
	{"mutate_promote_early", "(R10)", "a promotion waits for half of the old lease only", []string{"cut-primary-led"}},
	{"mutate_epoch_unstored", "(R2)", "an epoch is answered in before the superblock names it", []string{"kill-primary"}},
	{"mutate_old_streams", "(R2)", "streams of an older epoch are taken", []string{"awakened-standby"}},
}

// errNotCaught: the table tells which.
var errNotCaught = errors.New("not every mutant was caught")

// runMutants runs the scenarios first on the daemon as it is, for a scenario that nobody passes notices nothing, and then
// on each mutant, several times with other seeds until one notices.
func runMutants(ctx context.Context, c *call) error {
	chosen := mutants
	if len(c.words) > 0 {
		chosen = nil
		for _, w := range c.words {
			i := slices.IndexFunc(mutants, func(m mutant) bool { return m.tag == w })
			if i < 0 {
				return fmt.Errorf("%w: there is no mutant %q: %v are there", errUsage, w, tags())
			}
			chosen = append(chosen, mutants[i])
		}
	}
	if err := topology.Permitted(); err != nil {
		return notPermitted{err}
	}
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	fmt.Fprintf(c.stdout, "seed %d\n", c.seed)
	began := time.Now()
	table, ok := []string{"| mutant | breaks | scenario | verdict | how it shows |", "|---|---|---|---|---|"}, true
	for _, cell := range cellsOf(chosen) {
		good, row := trial(ctx, c, mutant{tag: "none", cells: []string{cell}}, 1)
		table, ok = append(table, row), ok && !good
	}
	for _, m := range chosen {
		caught, row, err := hunt(ctx, c, m)
		if err != nil {
			return err
		}
		table, ok = append(table, row), ok && caught
	}
	fmt.Fprintf(c.stdout, "\n%s\n%d mutants in %v\n", strings.Join(table, "\n"), len(chosen), time.Since(began).Round(time.Second))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return errNotCaught
	}
	return nil
}

func tags() (all []string) {
	for _, m := range mutants {
		all = append(all, m.tag)
	}
	return all
}

func cellsOf(chosen []mutant) (all []string) {
	for _, m := range chosen {
		for _, cell := range m.cells {
			if !slices.Contains(all, cell) {
				all = append(all, cell)
			}
		}
	}
	return all
}

// hunt builds a mutant into a folder of its own, which goes with it, and runs it.
func hunt(ctx context.Context, c *call, m mutant) (caught bool, row string, err error) {
	cfg, err := c.config()
	if err != nil {
		return false, "", err
	}
	dir, err := os.MkdirTemp("", "hacluster-mutant-")
	if err != nil {
		return false, "", err
	}
	defer os.RemoveAll(dir)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", m.tag, "-o", filepath.Join(dir, "haclusterd"), "hacluster/cmd/haclusterd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return false, "", fmt.Errorf("build %s, in the folder of the sources: %w: %s", m.tag, err, out)
	}
	if err := os.Symlink(filepath.Join(cfg.Bin, "ha-admin"), filepath.Join(dir, "ha-admin")); err != nil {
		return false, "", err
	}
	with := *c
	with.bin = dir
	caught, row = trial(ctx, &with, m, c.tries)
	return caught, row, nil
}

// trial runs the scenarios of a mutant until one fails. A run that proves nothing catches nobody.
func trial(ctx context.Context, c *call, m mutant, tries int) (failed bool, row string) {
	line := func(cell, verdict, how string) string {
		how = strings.NewReplacer("|", "/", "\n", " ").Replace(how)
		return fmt.Sprintf("| %s | %s | %s | %s | %s |", m.tag, strings.TrimSpace(m.what+" "+m.rule), cell, verdict, how[:min(len(how), 200)])
	}
	inner := *c
	if inner.out != "" {
		inner.out = filepath.Join(c.out, m.tag)
	}
	why := "nothing was noticed"
	for try := range tries {
		for _, cell := range m.cells {
			if ctx.Err() != nil {
				return false, line(cell, "interrupted", "")
			}
			s, ok := scenario.Find(cell)
			if !ok {
				return false, line(cell, "**broken**", "there is no such scenario")
			}
			r := runOne(ctx, &inner, s, c.seed+uint64(try))
			fmt.Fprintf(c.stdout, "%s: %s\n", m.tag, r.Line())
			switch {
			case r.Verdict == scenario.Passed && m.tag == "none":
				return false, line(cell, "passes", "")
			case r.Verdict == scenario.Failed && m.tag != "none":
				return true, line(cell, fmt.Sprintf("caught, try %d", try+1), r.Reasons[0])
			case r.Verdict != scenario.Passed && m.tag == "none":
				return true, line(cell, "**"+r.Verdict+"**", "the daemon as it is does not pass: "+r.Reasons[0])
			case r.Verdict == scenario.Broken:
				why = "a run was broken: " + r.Reasons[0]
			}
		}
	}
	return false, line(strings.Join(m.cells, ", "), "**NOT caught**", why)
}

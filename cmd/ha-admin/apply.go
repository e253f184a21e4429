package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
)

func (a *app) applyCommand() *cobra.Command {
	var yes bool
	r := api.ApplyRequest{}
	c := command("apply FILE", "change the running cluster to what the file says, after showing how", one, func(ctx context.Context, args []string) error {
		r.Name = args[0]
		return a.apply(ctx, r, yes)
	})
	f := c.Flags()
	f.BoolVar(&yes, "yes", false, "do it without asking")
	f.BoolVar(&r.PlanOnly, "plan", false, "show the plan and do nothing; ends with 3 when a step is refused")
	f.Uint64Var(&r.OnVersion, "on-version", 0, "do it only if the configuration still has this version: that of a plan seen before")
	f.BoolVar(&r.DisconnectClients, "disconnect-clients", false, "consent: clients of volumes that are removed or shrink are cut off")
	f.BoolVar(&r.AcceptDataLoss, "accept-data-loss", false, "consent: what lies behind the new end of volumes that shrink is lost")
	f.BoolVar(&r.DeleteData, "delete-data", false, "delete the data and the rescue images of volumes that are removed; without, they and the metadata are kept aside")
	c.Long = c.Short + `.

The plan is shown first. Steps are of six kinds: "add volume", "remove volume", "shrink volume" (wants --accept-data-loss),
"change online", "needs restart" (it is applied, and takes effect when haclusterd is started anew on each server) and
"refused"; if one step is refused, nothing is done. The change is made only if the configuration is still the one that was planned on. Afterwards every node runs
with it, whatever its own file says; install the file on all servers, "config differs" in ha-admin status tells where it
is not.`
	return c
}

// apply plans, asks, and has done exactly what was planned: the second request names the version of the first.
func (a *app) apply(ctx context.Context, r api.ApplyRequest, yes bool) error {
	if yes && r.PlanOnly {
		return api.BadRequest("--yes and --plan contradict each other: one of them is wanted")
	}
	var err error
	if r.File, err = readFile(r.Name); err != nil {
		return err
	}
	if err := a.soundFile(r.Name); err != nil {
		return err
	}
	_, err = a.carryOut(ctx, r, yes)
	return err
}

// carryOut is apply of a text that is at hand already. It reports whether the change was made.
func (a *app) carryOut(ctx context.Context, r api.ApplyRequest, yes bool) (made bool, err error) {
	look := r
	look.PlanOnly = true
	plan, err := a.askApply(ctx, look)
	if err != nil {
		return false, err
	}
	no := config.Refused(plan.Steps)
	switch {
	case len(no) > 0:
		if err := a.showPlan(plan); err != nil {
			return false, err
		}
		return false, api.Refused("nothing is applied: %d of %d steps are refused: %s: %s", len(no), len(plan.Steps), no[0].What, no[0].Text)
	case r.PlanOnly, len(plan.Steps) == 0, !yes && a.output == "json":
		return false, a.showPlan(plan)
	case !yes:
		if err := a.showPlan(plan); err != nil {
			return false, err
		}
		if err := a.sure("apply this? [yes/no] "); err != nil {
			return false, err
		}
	}
	r.OnVersion = plan.Version
	done, err := a.askApply(ctx, r)
	if err != nil {
		return false, err
	}
	return true, a.showDone(done, yes)
}

func (a *app) askApply(ctx context.Context, r api.ApplyRequest) (done api.Applied, err error) {
	err = a.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		done, err = c.Apply(ctx, r)
		return err
	})
	return done, err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, api.Failed("read the file to apply: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, config.MaxFile+1))
	if err == nil && len(b) > config.MaxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, config.MaxFile)
	}
	if err != nil {
		return nil, api.Failed("read the file to apply: %v", err)
	}
	return b, nil
}

// soundFile says what is wrong with the file line by line, as config check does, before anybody is asked.
func (a *app) soundFile(path string) error {
	_, err := config.Check(path, config.Options{Node: a.nodeName()})
	var wrong config.Problems
	if errors.As(err, &wrong) {
		return a.verdict(path, int(api.KindFailed), wrong, nil)
	}
	return err
}

func (a *app) showPlan(p api.Applied) error {
	if a.output == "json" {
		return a.printJSON(p)
	}
	return a.print(planText(p))
}

func planText(p api.Applied) string {
	if len(p.Steps) == 0 {
		return fmt.Sprintf("nothing to do: the file says what runs (version %d)\n", p.Version)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "plan on version %d of the configuration:\n", p.Version)
	steps := newTable()
	for _, s := range p.Steps {
		line := ""
		if s.Line > 0 {
			line = fmt.Sprintf("line %d", s.Line)
		}
		steps.row("  "+string(s.Kind), line, s.What, s.Text)
	}
	return out.String() + steps.String()
}

func (a *app) showDone(p api.Applied, showSteps bool) error {
	if a.output == "json" {
		return a.printJSON(p)
	}
	text := ""
	if showSteps {
		text = planText(p)
	}
	text += fmt.Sprintf("applied: the configuration has version %d\n", p.NewVersion)
	if len(p.WaitingFor) > 0 {
		text += fmt.Sprintf("not running with it yet: %s\n", listText(p.WaitingFor))
	}
	return a.print(text)
}

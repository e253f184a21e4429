package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) failoverCommand() *cobra.Command {
	var r api.FailoverRequest
	c := command("failover VOLUME", "move the primary role: a hand-over when the primary lives, else a promotion if it is safe", one,
		func(ctx context.Context, args []string) error {
			r.Volume = args[0]
			if r.AcceptDataLoss && !r.Force {
				return api.BadRequest("--accept-data-loss means nothing without --force")
			}
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error { return a.failover(ctx, c, r) })
		})
	c.Flags().StringVar(&r.To, "to", "", "the new primary (default: the best member)")
	c.Flags().BoolVar(&r.Force, "force", false, "promote without the proof that nothing is lost")
	c.Flags().BoolVar(&r.AcceptDataLoss, "accept-data-loss", false, "consent to the loss that --force names")
	return c
}

func (a *app) failover(ctx context.Context, c *api.Client, r api.FailoverRequest) error {
	f, err := c.Failover(ctx, r)
	if err != nil {
		return err
	}
	if a.output == "json" {
		return a.printJSON(f)
	}
	text := failoverText(f) + "\n"
	if f.Volume != r.Volume {
		text = oneLine(fmt.Sprintf("%s is part of group %s, which moved as a whole", r.Volume, f.Volume)) + "\n" + text
	}
	return a.print(text)
}

func (a *app) failoversCommand() *cobra.Command {
	return command("failovers", "list the past ones with their stages, oldest first", none, func(ctx context.Context, _ []string) error {
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			past, err := c.Failovers(ctx)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(past)
			}
			return a.print(failoversTable(past))
		})
	})
}

func failoversTable(past []api.Failover) string {
	t := newTable("AT", "VOLUME", "EPOCH", "FROM", "TO", "RTO", "TARGET", "RPO", "REASON", "STAGES")
	for _, f := range past {
		t.row(f.At.Format(time.RFC3339), f.Volume, f.Epoch, f.From, f.To, fmt.Sprintf("%dms", f.RTOMs), fmt.Sprintf("%dms", f.RTOTargetMs),
			rpoText(f), f.Reason, stagesText(f.Stages))
	}
	return t.String()
}

// failoverText tells one in one line.
func failoverText(f api.Failover) string {
	met := "met"
	if f.RTOMs > f.RTOTargetMs {
		met = "missed"
	}
	return oneLine(fmt.Sprintf("%s from %s to %s, epoch %d, at %s (%s): %d ms, target %d ms %s, %s; %s", f.Volume, orNone(f.From), orNone(f.To),
		f.Epoch, f.At.Format(time.RFC3339), f.Reason, f.RTOMs, f.RTOTargetMs, met, lossText(f), stagesText(f.Stages)))
}

func stagesText(stages []api.Stage) string {
	var texts []string
	for _, s := range stages {
		texts = append(texts, fmt.Sprintf("%s %d ms", s.Name, s.Ms))
	}
	return strings.Join(texts, ", ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

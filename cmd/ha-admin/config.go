package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/identity"
)

// exitConfig is what haclusterd ends with when the configuration is wrong.
const exitConfig = 2

func (a *app) configCommand() *cobra.Command {
	return group("config", "check and show the configuration", a.configCheck(), a.configShow(), a.configExport())
}

func (a *app) configCheck() *cobra.Command {
	var start bool
	c := command("check FILE", "say what is wrong with a file, without starting anything", one, func(_ context.Context, args []string) error {
		if start {
			return a.checkStart(args[0])
		}
		return a.checkFile(args[0])
	})
	c.Flags().BoolVar(&start, "start", false, "say exactly what haclusterd would say at its start, with the same --node, --pki and --insecure; ends with 2 when it would refuse")
	return c
}

// checkFile looks at the file for every node. What the daemon cannot do yet is a warning: the file itself is right.
func (a *app) checkFile(path string) error {
	rep, err := config.Check(path, config.Options{Node: a.nodeName(), Insecure: a.insecure})
	var wrong config.Problems
	switch {
	case errors.As(err, &wrong):
		return a.verdict(path, int(api.KindFailed), wrong, nil)
	case err != nil:
		return err
	}
	if len(rep.Missing) > 0 {
		return a.verdict(path, int(api.KindFailed), rep.Missing, append(rep.Unsupported, rep.Warnings...))
	}
	return a.verdict(path, 0, nil, append(rep.Unsupported, rep.Warnings...))
}

// checkStart looks at it as haclusterd does.
func (a *app) checkStart(path string) error {
	cfg, err := config.Load(path, config.Options{Node: a.node, Insecure: a.insecure})
	if err == nil && !a.insecure {
		_, err = identity.New(identity.Config{PKI: a.folder().Path, Cluster: cfg.Cluster.Name, Node: cfg.Self})
	}
	var wrong config.Problems
	switch {
	case errors.As(err, &wrong):
		return a.verdict(path, exitConfig, wrong, nil)
	case err != nil:
		fmt.Fprintf(a.err, "ha-admin: %s\n", oneLine(err.Error()))
		return &exit{exitConfig}
	}
	return a.verdict(path, 0, nil, cfg.MissingAgents())
}

// verdict prints one line for each problem and each warning.
func (a *app) verdict(path string, code int, wrong, warnings config.Problems) error {
	if a.output == "json" {
		if err := a.printJSON(verdictDocument(code == 0, wrong, warnings)); err != nil {
			return err
		}
	} else {
		for _, p := range wrong {
			fmt.Fprintln(a.err, p)
		}
		for _, p := range warnings {
			fmt.Fprintln(a.err, p)
		}
		if code == 0 {
			if err := a.print(path + ": in order\n"); err != nil {
				return err
			}
		}
	}
	if code != 0 {
		return &exit{code}
	}
	return nil
}

// finding is a problem as a script reads it.
type finding struct {
	Line int    `json:"line"`
	What string `json:"what"`
	Text string `json:"text"`
	Want string `json:"want"`
}

func verdictDocument(ok bool, wrong, warnings config.Problems) any {
	list := func(ps config.Problems) []finding {
		out := []finding{}
		for _, p := range ps {
			out = append(out, finding{p.Line, p.What, p.Text, p.Want})
		}
		return out
	}
	return struct {
		OK       bool      `json:"ok"`
		Problems []finding `json:"problems"`
		Warnings []finding `json:"warnings"`
	}{ok, list(wrong), list(warnings)}
}

func (a *app) configShow() *cobra.Command {
	return command("show [FILE]", "show the applied configuration, or what a file means, with limits and the sum of the timers", atMostOne,
		func(ctx context.Context, args []string) error {
			if len(args) == 1 {
				return a.showFile(args[0])
			}
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
				doc, text, err := c.ConfigShow(ctx)
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.printDocument(text)
				}
				return a.print(doc.Table())
			})
		})
}

func (a *app) configExport() *cobra.Command {
	c := command("export", "print the text of the applied configuration: what cluster.hcl should be on every server", none,
		func(ctx context.Context, _ []string) error {
			text, err := a.appliedText(ctx)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(struct {
					Version uint64 `json:"version"`
					Text    string `json:"text"`
				}{text.Version, string(text.Text)})
			}
			return a.print(string(text.Text))
		})
	c.Long = c.Short + `.

After a change by ` + "`ha-admin volume delete`" + `, or when nobody knows any more which file was applied, this is the file to
install. It is for administrators only, for the text may hold what config show leaves out. Without quorum it is what the
node that answers runs with.`
	return c
}

func (a *app) appliedText(ctx context.Context) (text api.ConfigText, err error) {
	err = a.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		text, err = c.ConfigExport(ctx)
		return err
	})
	return text, err
}

func (a *app) showFile(path string) error {
	rep, err := config.Check(path, config.Options{Node: a.nodeName(), Insecure: a.insecure})
	var wrong config.Problems
	switch {
	case errors.As(err, &wrong):
		return a.verdict(path, int(api.KindFailed), wrong, nil)
	case err != nil:
		return err
	}
	doc := rep.Config.Document()
	if a.output == "json" {
		return a.printDocument(doc.JSON())
	}
	return a.print(doc.Table())
}

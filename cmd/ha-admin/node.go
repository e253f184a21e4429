package main

import (
	"context"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "list and manage nodes", a.nodeList(),
		a.nodeChange("add NODE", "take a node of the file into the cluster", "added", (*api.Client).NodeAdd),
		a.nodeChange("remove NODE", "take a node out of the cluster, for good or to let it come back empty", "removed", (*api.Client).NodeRemove),
		notYet("drain NODE", "hand over what a node is primary of"),
		notYet("undrain NODE", "let a node be primary again"))
}

func (a *app) nodeList() *cobra.Command {
	return command("list", "list the nodes", none, func(ctx context.Context, _ []string) error {
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			all, err := c.NodeList(ctx)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(all)
			}
			t := newTable("NODE", "ROLE", "STATE", "VOTER", "ADDRESS")
			for _, m := range all {
				t.row(m.Name, m.Role, m.State, yesNo(m.Voter), m.Address)
			}
			return a.print(t.String())
		})
	})
}

func (a *app) nodeChange(use, short, past string, change func(*api.Client, context.Context, string) error) *cobra.Command {
	return command(use, short, one, func(ctx context.Context, args []string) error {
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			if err := change(c, ctx, args[0]); err != nil {
				return err
			}
			return a.done("node %s is %s", args[0], past)
		})
	})
}

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
		a.nodeChange("drain NODE", "hand over what a node is primary of, and let it not become primary by itself", "drained", drain(true)),
		a.nodeChange("undrain NODE", "let a drained node become primary by itself again", "drained no more", drain(false)))
}

func drain(drained bool) func(*api.Client, context.Context, string) error {
	return func(c *api.Client, ctx context.Context, node string) error { return c.NodeDrain(ctx, node, drained) }
}

// maintenanceCommand is `maintenance on|off`.
func (a *app) maintenanceCommand() *cobra.Command {
	set := func(use, short, past string, on bool) *cobra.Command {
		return command(use, short, none, func(ctx context.Context, _ []string) error {
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
				if err := c.Maintenance(ctx, on); err != nil {
					return err
				}
				return a.done("%s", past)
			})
		})
	}
	return group("maintenance", "suspend automatic failover of all volumes",
		set("on", "have no volume go to another node by itself; ha-admin failover moves one", "maintenance is on: no volume goes to another node by itself, also when its primary is lost", true),
		set("off", "have volumes fail over by themselves again", "maintenance is off: volumes fail over by themselves again", false))
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

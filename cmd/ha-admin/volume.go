package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) volumeCommand() *cobra.Command {
	return group("volume", "list and manage volumes", a.volumeList(), a.volumeCreate(), a.volumeResync(),
		notYet("resize VOLUME", "change the size"),
		notYet("delete VOLUME", "take a volume out of the cluster"),
		notYet("verify VOLUME", "compare the replicas"),
		notYet("pause VOLUME", "suspend I/O"),
		notYet("resume VOLUME", "end a pause"),
		notYet("rescue VOLUME", "look after writes that were kept aside"))
}

func (a *app) volumeList() *cobra.Command {
	return command("list", "list the volumes", none, func(ctx context.Context, _ []string) error {
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			all, err := c.VolumeList(ctx)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printJSON(all)
			}
			t := newTable("VOLUME", "STATE", "SIZE", "MODE", "PRIMARY", "EPOCH", "REPLICAS")
			for _, v := range all {
				t.row(v.Name, v.State, sizeText(v.Size), v.Mode, v.Primary, v.Epoch, strings.Join(v.Replicas, ", "))
			}
			return a.print(t.String())
		})
	})
}

func (a *app) volumeCreate() *cobra.Command {
	var r api.VolumeCreateRequest
	c := command("create VOLUME", "start a volume of the file whose backings hold content already", one,
		func(ctx context.Context, args []string) error {
			r.Volume = args[0]
			if r.InitialFrom != "" && r.DiscardData {
				return api.BadRequest("--initial-from and --discard-data contradict each other: data is either kept or discarded")
			}
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
				if err := c.VolumeCreate(ctx, r); err != nil {
					return err
				}
				return a.done("volume %s is created", r.Volume)
			})
		})
	c.Flags().StringVar(&r.InitialFrom, "initial-from", "", "keep this node's data; the others are fully synced from it")
	c.Flags().BoolVar(&r.DiscardData, "discard-data", false, "consent to the loss of whatever the backings hold")
	return c
}

func (a *app) volumeResync() *cobra.Command {
	var r api.ResyncAllowRequest
	c := command("resync VOLUME --target NODE", "permit that a replica with writes of its own is overwritten, after a forced promotion", one,
		func(ctx context.Context, args []string) error {
			r.Volume = args[0]
			if r.Target == "" {
				return api.BadRequest("--target NODE is missing: whose replica is to be overwritten?")
			}
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
				if err := c.ResyncAllow(ctx, r); err != nil {
					return err
				}
				return a.done("the replica of volume %s on %s may be overwritten", r.Volume, r.Target)
			})
		})
	c.Flags().StringVar(&r.Target, "target", "", "the node whose replica is overwritten")
	c.Flags().BoolVar(&r.DiscardTargetData, "discard-target-data", false, "consent to the loss of what only the target holds")
	return c
}

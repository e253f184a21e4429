package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) volumeCommand() *cobra.Command {
	return group("volume", "list and manage volumes", a.volumeList(), a.volumeCreate(), a.volumeResync(), a.volumeVerify(),
		a.volumePause("pause", "pause the resync of replicas that are not in sync", "paused", true),
		a.volumePause("resume", "go on with a resync that was paused", "resumed", false),
		a.volumeResize(),
		a.volumeDelete(),
		a.rescueCommand())
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
	c.Flags().BoolVar(&r.DiscardData, "discard-data", false, "consent to the loss of whatever the backings hold: one of them is taken as it is, and the others are made equal")
	return c
}

func (a *app) volumeResync() *cobra.Command {
	var r api.VolumeResyncRequest
	c := command("resync VOLUME --replica NODE", "have a replica resynced that is held back, paused, or to be compared as a whole", one,
		func(ctx context.Context, args []string) error {
			r.Volume = args[0]
			if r.Replica == "" {
				return api.BadRequest("--replica NODE is missing: whose replica is to be resynced?")
			}
			return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
				group, err := c.VolumeResync(ctx, r)
				if err != nil {
					return err
				}
				return a.done("the replica of %s on %s is resynced", meant(r.Volume, group), r.Replica)
			})
		})
	c.Long = "A replica that returns is resynced by itself. This command is for one that is not: it ends a pause; --full has all of it\n" +
		"compared with the primary, whatever is known of it, as after its disk was replaced; and after a forced promotion it\n" +
		"permits that a replica with writes of its own is overwritten without a rescue image, for want of room. It returns when this is decided, not when it is copied:\n" +
		"`ha-admin status` shows how far it is."
	c.Flags().StringVar(&r.Replica, "replica", "", "the node whose replica is resynced")
	c.Flags().StringVar(&r.Replica, "target", "", "the same as --replica")
	c.Flags().BoolVar(&r.Full, "full", false, "compare all of it")
	c.Flags().BoolVar(&r.DropMember, "drop-member", false, "with --full: consent that a replica in sync leaves the in-sync set until it has been compared")
	c.Flags().BoolVar(&r.DiscardTargetData, "discard-target-data", false, "consent to the loss of what only this replica holds: no rescue image of it has to be kept")
	_ = c.Flags().MarkHidden("target")
	return c
}

// meant is what a command was carried out on: a volume, or all of the group that it is part of.
func meant(volume, group string) string {
	switch group {
	case "":
		return "volume " + volume
	case volume:
		return "group " + group
	}
	return fmt.Sprintf("group %s, which volume %s is part of, as a whole,", group, volume)
}

func (a *app) volumePause(use, short, done string, paused bool) *cobra.Command {
	r := api.VolumePauseRequest{Paused: paused}
	c := command(use+" VOLUME", short, one, func(ctx context.Context, args []string) error {
		r.Volume = args[0]
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			group, err := c.VolumePause(ctx, r)
			if err != nil {
				return err
			}
			return a.done("the resync of %s is %s", meant(r.Volume, group), done)
		})
	})
	c.Long = "A pause is kept in the cluster's state until `ha-admin volume resume`: it outlives failovers and restarts. Clients are served\n" +
		"as ever. Writes go on to reach the replicas where they are not behind; nothing else is compared or copied, so a replica that\n" +
		"lacks something does not become a member. One that is a member stays it."
	c.Flags().StringVar(&r.Replica, "replica", "", "only the replica of this node; without, all of the volume")
	return c
}

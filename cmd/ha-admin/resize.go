package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
)

func (a *app) volumeResize() *cobra.Command {
	var yes bool
	r := api.ApplyRequest{}
	c := command("resize VOLUME SIZE", "make a volume larger or smaller, after showing what that means", two, func(ctx context.Context, args []string) error {
		size, ok := config.ParseSize(args[1])
		if !ok {
			return api.BadRequest("size %q: a whole number with a unit is wanted, such as 20GiB", args[1])
		}
		return a.editApplied(ctx, r, yes, fmt.Sprintf("with volume %s of %s", args[0], args[1]), func(text []byte) ([]byte, error) {
			return config.WithVolumeSize(text, args[0], size)
		})
	})
	f := c.Flags()
	f.BoolVar(&yes, "yes", false, "do it without asking")
	f.BoolVar(&r.AcceptDataLoss, "accept-data-loss", false, "to make it smaller: consent that what lies behind the new end is lost")
	f.BoolVar(&r.DisconnectClients, "disconnect-clients", false, "to make it smaller: consent that its clients are cut off")
	c.Long = c.Short + `.

It is what ` + "`ha-admin apply`" + ` does with a file that has the other size. Every replica must be in sync. The role is handed over
to the standby, and from there on the volume has the new size. A client's connection ends as in any hand-over; when it
connects again, it sees the new size. If the role cannot be handed over at the moment, the command says so, and the next
change of the primary while every replica is in sync does the rest. A promotion by force gives the change up: resize
again. Until it is in force, resizing to the size that the volume has takes it back.

A volume grows while it is used. Every backing must hold the size: files are made longer, block devices have to be
enlarged before. What is new reads as zeroes on files, and as whatever the block devices hold there; where the volume was
larger before, it is zeroed on every replica first, which may take a while: give --timeout then.

A volume shrinks with consent only: make what is on it smaller first (` + "`resize2fs`" + `), disconnect its clients, and say
--accept-data-loss. From then on clients are shown the smaller size. Backings are not made shorter: what lay behind the
new end stays there until the volume grows over it, so on each server the device may be made smaller afterwards, or the
file be cut.

The files on the servers have the old size afterwards: install what ` + "`ha-admin config export`" + ` prints.`
	return c
}

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
	c := command("resize VOLUME SIZE", "make a volume larger while it is used, after showing what that means", two, func(ctx context.Context, args []string) error {
		size, ok := config.ParseSize(args[1])
		if !ok {
			return api.BadRequest("size %q: a whole number with a unit is wanted, such as 20GiB", args[1])
		}
		return a.editApplied(ctx, api.ApplyRequest{}, yes, fmt.Sprintf("with volume %s of %s", args[0], args[1]), func(text []byte) ([]byte, error) {
			return config.WithVolumeSize(text, args[0], size)
		})
	})
	c.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	c.Long = c.Short + `.

It is what ` + "`ha-admin apply`" + ` does with a file that has the larger size. Every replica must be in sync, and every backing
hold the size: files are made longer, block devices have to be enlarged before. Writes go on; then the role is handed over
to the standby, and from there on the volume has the new size. A client's connection ends as in any hand-over; when it
connects again, it sees the new size. What is new reads as zeroes on files, and as whatever the block devices hold there.
If the role cannot be handed over at the moment, the command says so, and the next change of the primary while every
replica is in sync does the rest. A promotion by force gives the growth up: resize again. A volume does not shrink.

The files on the servers have the old size afterwards: install what ` + "`ha-admin config export`" + ` prints.`
	return c
}

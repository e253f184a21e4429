package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
)

func (a *app) volumeDelete() *cobra.Command {
	var yes bool
	r := api.ApplyRequest{}
	c := command("delete VOLUME", "take a volume out of the running cluster, after showing what that means", one, func(ctx context.Context, args []string) error {
		return a.editApplied(ctx, r, yes, fmt.Sprintf("without volume %s", args[0]), func(text []byte) ([]byte, error) {
			return config.WithoutVolume(text, args[0])
		})
	})
	f := c.Flags()
	f.BoolVar(&yes, "yes", false, "do it without asking")
	f.BoolVar(&r.DisconnectClients, "disconnect-clients", false, "consent: its clients are cut off")
	f.BoolVar(&r.DeleteData, "delete-data", false, "delete its data and its rescue images on every node; without, they and the metadata are kept aside")
	c.Long = c.Short + `.

It is what ` + "`ha-admin apply`" + ` does with a file that has no such block: clients are cut off, the volume is flushed and
closed on every node. Its data stays where it is, its metadata goes to data_dir/removed; with --delete-data both are
deleted (of a block device the metadata only), and rescue images with them. The plan names each one, with its size and node: export
first what is wanted of them. The change is void if another one of the configuration comes first.

The files on the servers still have the volume afterwards, and "config differs" in ha-admin status says so: install the
new text everywhere, ` + "`ha-admin config export`" + ` prints it.`
	return c
}

// editApplied applies the text that the cluster runs with, changed by edit, on the version that it had. what names the
// result in messages.
func (a *app) editApplied(ctx context.Context, r api.ApplyRequest, yes bool, what string, edit func([]byte) ([]byte, error)) error {
	if a.output == "json" && !yes {
		return api.Refused("nothing is done: with -o json nobody is asked: consent with --yes")
	}
	text, err := a.appliedText(ctx)
	if err != nil {
		return err
	}
	r.Name, r.OnVersion = "the applied configuration "+what, text.Version
	if r.File, err = edit(text.Text); err != nil {
		return api.Failed("%v", err)
	}
	made, err := a.carryOut(ctx, r, yes)
	if err != nil || !made || a.output == "json" {
		return err
	}
	return a.print("cluster.hcl on the servers is the old one now: install what `ha-admin config export` prints on all of them\n")
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	c := command("events", "tell what happened on the node that is asked, oldest first", none, func(ctx context.Context, _ []string) error {
		if follow {
			return a.followEvents(ctx)
		}
		return a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			return c.Events(ctx, false, a.printEvent)
		})
	})
	c.Flags().BoolVar(&follow, "follow", false, "go on with what happens, until interrupted; when the node goes away, the next of --server is asked")
	return c
}

// printEvent prints one line for each, in JSON too, so that a follower can read line by line.
func (a *app) printEvent(e api.Event) error {
	if a.output == "json" {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return a.print(string(text) + "\n")
	}
	about := e.Node
	if e.Volume != "" {
		about += " " + e.Volume
	}
	return a.print(oneLine(fmt.Sprintf("%s  %s  %s  %s", e.At.Format(time.RFC3339Nano), about, e.Kind, e.Text)) + "\n")
}

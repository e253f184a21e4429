package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes what --help says as manual pages: one source for both.
func (a *app) manCommand() *cobra.Command {
	return command("man DIR", "write the manual pages of all commands into a folder, as for MANPATH/man8", one,
		func(_ context.Context, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			a.flags.DisableAutoGenTag = true // a line on who made it when
			err := doc.GenManTree(a.flags, &doc.GenManHeader{Section: "8", Source: "hacluster", Manual: "hacluster"}, args[0])
			if err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			fmt.Fprintf(a.out, "manual pages written to %s\n", args[0])
			return nil
		})
}

// Program ha-admin is the operator's and the scripts' way to a cluster. It speaks only to the admin service of a node
// (and reads cluster.hcl to check it, or to find the local node's socket); it decides nothing itself.
//
// One file holds one group of commands. Every command either prints its answer to standard output and ends with 0, or
// says in one line on standard error what happened, why and what to do, and ends with the code of the error's kind:
// 1 failed, 2 wrong usage, 3 refused because it would lose data or break a rule, 4 nobody answers or no quorum.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

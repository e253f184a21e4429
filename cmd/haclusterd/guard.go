package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"hacluster/heartbeat/fence/agent"
	"hacluster/heartbeat/guard"
)

// asGuard is what the program does as the guard of services, as the holder of one resource, or of one fence agent: the daemon starts it so, nobody else.
// ok: it was one of them.
func asGuard(args []string, stderr io.Writer) (code int, ok bool) {
	if len(args) < 2 || args[0] != "guard" && args[0] != "hold" && args[0] != "fence" {
		return 0, false
	}
	// It stops when the daemon or a lease says so. Noticed and not ignored, or its children would ignore them as well.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	log := slog.New(slog.NewTextHandler(stderr, nil)).With("process", args[0], "of", args[1])
	var err error
	switch args[0] {
	case "hold":
		err = guard.Hold(os.Stdin, os.Stdout, log)
	case "fence":
		err = agent.Hold(os.Stdin, os.Stdout)
	default:
		var self string
		if self, err = os.Executable(); err == nil {
			err = guard.Serve(guard.Config{Dir: args[1], Holder: []string{self, "hold", args[1]}, Log: log})
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "haclusterd", args[0]+":", err)
		return 1, true
	}
	return 0, true
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// supervisor tells systemd (Type=notify) how the daemon is; without systemd nothing listens.
type supervisor struct {
	ready  <-chan struct{}
	why    func() string // why the node is not ready; empty: it is
	alive  func()        // returns when the daemon could look at itself
	notify func(state string)
}

const (
	// statusEvery is how often systemd hears how the node is.
	statusEvery = 10 * time.Second
	// startExtension is what a start may take from each such word on. A node waits for the others as long as it takes: ended
	// by TimeoutStartSec again and again, one that is alone would be missing just when the next one comes.
	startExtension = 6 * statusEvery
)

// run tells of the start for as long as it takes, of readiness, of what changes afterwards, and of stopping.
func (s supervisor) run(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	ready, last := s.ready, ""
	for {
		now := s.why()
		if now == "" {
			now = "ready"
		}
		switch {
		case ready != nil:
			s.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=%s", startExtension.Microseconds(), now))
		case now != last:
			s.notify("STATUS=" + now)
		}
		last = now
		select {
		case <-ready:
			ready = nil
			s.notify(daemon.SdNotifyReady)
		case <-tick.C:
		case <-ctx.Done():
			s.notify(daemon.SdNotifyStopping)
			return
		}
	}
}

// feed answers systemd's watchdog, three times within what it allows, and each time only when the daemon could look at
// itself: one whose threads wait for each other is ended, with the places where they wait in the log, and started anew.
func (s supervisor) feed(ctx context.Context) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		s.alive()
		s.notify(daemon.SdNotifyWatchdog)
		select {
		case <-tick.C:
		case <-ctx.Done(): // from here on TimeoutStopSec counts
			return
		}
	}
}

// Package effect starts, stops and watches the kinds of resources that a service is made of (package resource decides when):
//
//	exec      commands, and all processes that they leave behind
//	systemd   a unit
//	address   an IPv4 or IPv6 address on an interface
//
// It decides nothing and retries nothing. Every call ends when its context does, with what it started killed. A process that
// uses it for exec has to be the subreaper of what it starts (Subreaper), or what daemonizes would escape: so each resource has a
// process of its own (package guard).
package effect

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Spec says what a resource is. Kind tells which of the other fields count.
type Spec struct {
	Kind string `json:"kind"`
	Name string `json:"name"`

	// exec. Run is the service itself, which stays in the foreground; or Start brings it up and returns. Either is a program and its
	// arguments, without a shell.
	Run     []string `json:"run,omitempty"`
	Start   []string `json:"start,omitempty"`
	Stop    []string `json:"stop,omitempty"`    // then SIGTERM to what is left; without: SIGTERM alone
	Monitor []string `json:"monitor,omitempty"` // exit code 0: well

	Interface string `json:"interface,omitempty"` // address
}

// Same reports whether both are the same resource.
func (s Spec) Same(o Spec) bool { return reflect.DeepEqual(s.bare(), o.bare()) }

// bare has no empty lists, which do not survive being written down.
func (s Spec) bare() Spec {
	for _, l := range []*[]string{&s.Run, &s.Start, &s.Stop, &s.Monitor} {
		if len(*l) == 0 {
			*l = nil
		}
	}
	return s
}

func (s Spec) String() string { return s.Kind + " " + s.Name }

// environment is what programs inherit: not what systemd tells the daemon alone.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_") || strings.HasPrefix(v, "LISTEN_")
	})
}

// Effect is one resource. Its methods are not called concurrently, but for Kill, which may be called beside any.
type Effect interface {
	Start(ctx context.Context) error
	// Stop returns nil when nothing of the resource runs. One that does not run is stopped already.
	Stop(ctx context.Context) error
	Monitor(ctx context.Context) error
	// Kill is Stop without asking anybody.
	Kill(ctx context.Context) error
	// Ended is told when a resource that was started ends by itself, once; it is never closed.
	Ended() <-chan error
}

// New is the resource of the spec, not started. Output of programs goes to log, bounded.
func New(s Spec, log *slog.Logger) (Effect, error) {
	switch s.Kind {
	case "exec":
		if (len(s.Run) == 0) == (len(s.Start) == 0) {
			return nil, fmt.Errorf("%s: either run or start is wanted", s)
		}
		return &commands{spec: s, log: log, ended: make(chan error, 1), env: environment()}, nil
	case "systemd":
		return &unit{name: s.Name, log: log}, nil
	case "address":
		p, err := netip.ParsePrefix(s.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		return &address{prefix: p, link: s.Interface, log: log}, nil
	}
	return nil, fmt.Errorf("unknown kind of resource %q", s.Kind)
}

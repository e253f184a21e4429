package effect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"
)

// unit is a resource of the kind systemd. Its processes are systemd's, which kills all of the unit's control group.
type unit struct {
	name string
	log  *slog.Logger
}

func (u *unit) Ended() <-chan error { return nil }

func (u *unit) Start(ctx context.Context) error { return u.ctl(ctx, "start", u.name) }

func (u *unit) Stop(ctx context.Context) error { return u.ctl(ctx, "stop", u.name) }

func (u *unit) Monitor(ctx context.Context) error {
	state, err := u.state(ctx)
	if err != nil {
		return err
	}
	switch state {
	case "active", "reloading", "activating":
		return nil
	}
	return fmt.Errorf("the unit is %s", state)
}

// Kill sends SIGKILL to every process of the unit, and waits until systemd says that none is left.
func (u *unit) Kill(ctx context.Context) error {
	_ = u.ctl(ctx, "stop", "--no-block", u.name) // or it would be restarted
	for {
		killed := u.ctl(ctx, "kill", "--signal=SIGKILL", u.name) // fails when none is left
		state, err := u.state(ctx)
		if err == nil && (state == "inactive" || state == "failed") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the unit is %s: %w", state, errors.Join(err, killed, ctx.Err()))
		case <-time.After(10 * pollPause):
		}
	}
}

func (u *unit) state(ctx context.Context) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "systemctl", "show", "--property=ActiveState", "--value", u.name)
	cmd.Stdout, cmd.WaitDelay = &out, time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("systemctl show %s: %w", u.name, err)
	}
	return strings.TrimSpace(out.String()), nil
}

// maxSaid bounds what a message quotes of systemctl.
const maxSaid = 500

func (u *unit) ctl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	said := strings.Join(strings.Fields(string(out[:min(len(out), maxSaid)])), " ")
	return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, said)
}

package effect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// commands is a resource of the kind exec. All descendants of this process belong to it.
type commands struct {
	spec  Spec
	log   *slog.Logger
	env   []string
	ended chan error

	mu      sync.Mutex
	waited  map[int]bool // children that a goroutine of ours waits for
	running *exec.Cmd    // of Run
}

func (c *commands) Ended() <-chan error { return c.ended }

// Start runs the start command, or the service itself, which is well when it could be executed.
func (c *commands) Start(ctx context.Context) error {
	if len(c.spec.Start) > 0 {
		return c.run(ctx, "start", c.spec.Start)
	}
	cmd, last, err := c.begin("run", c.spec.Run)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.running = cmd
	c.mu.Unlock()
	go func() {
		err := c.wait(cmd)
		c.mu.Lock()
		mine := c.running == cmd
		if mine {
			c.running = nil
		}
		c.mu.Unlock()
		if !mine {
			return // it was stopped
		}
		if err == nil {
			err = errors.New("exit status 0")
		}
		select {
		case c.ended <- fmt.Errorf("%w%s", err, last):
		default:
		}
	}()
	return nil
}

// begin executes a command in a session of its own, with its output in the log and no input.
func (c *commands) begin(what string, argv []string) (*exec.Cmd, *tail, error) {
	w, last, err := output(c.log, c.spec.Name+" "+what)
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.env, "/", w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	// The daemon may be spared when memory runs out; its services are like any other.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
	if c.waited == nil {
		c.waited = map[int]bool{}
	}
	c.waited[cmd.Process.Pid] = true
	return cmd, last, nil
}

// wait is cmd.Wait, beside the reaping of what others left behind.
func (c *commands) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	c.mu.Lock()
	delete(c.waited, cmd.Process.Pid)
	c.mu.Unlock()
	return err
}

func (c *commands) isWaited(pid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waited[pid]
}

// run executes a command and waits for it. When ctx ends first, its session's processes are killed.
func (c *commands) run(ctx context.Context, what string, argv []string) error {
	cmd, last, err := c.begin(what, argv)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.wait(cmd) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w%s", what, err, last)
		}
		return nil
	case <-ctx.Done():
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		return fmt.Errorf("%s: killed: it was not to go on, or took too long%s", what, last)
	}
}

// Stop runs the stop command, then has everything that is left end.
func (c *commands) Stop(ctx context.Context) error {
	c.forget()
	if len(c.spec.Stop) > 0 {
		if err := c.run(ctx, "stop", c.spec.Stop); err != nil {
			return err
		}
	}
	return c.end(ctx, unix.SIGTERM)
}

// forget: that it ends from here on is no failure.
func (c *commands) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = nil
}

func (c *commands) Kill(ctx context.Context) error {
	c.forget()
	return c.end(ctx, unix.SIGKILL)
}

// end signals all processes and waits until none is left.
func (c *commands) end(ctx context.Context, sig unix.Signal) error {
	return End(ctx, sig, nil, c.isWaited)
}

func (c *commands) Monitor(ctx context.Context) error {
	Reap(c.isWaited)
	c.mu.Lock()
	gone := len(c.spec.Run) > 0 && c.running == nil
	c.mu.Unlock()
	if gone {
		return errors.New("it does not run")
	}
	if len(c.spec.Monitor) == 0 {
		return nil
	}
	return c.run(ctx, "monitor", c.spec.Monitor)
}

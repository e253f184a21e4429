package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"hacluster/cmd/internal/lab/topology"
)

// watchdog is a process of its own that outlives whatever becomes of us: when we end, in any way, or take too long, it
// lets everything go on that stands still, and removes the lab.
type watchdog struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser // its other end reads the end of us
}

// guardLab starts the watchdog of a lab.
func guardLab(lab string, limit time.Duration) (*watchdog, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &watchdog{cmd: exec.Command(self, "guard", "--lab", lab, "--for", limit.String())}
	if w.pipe, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C that ends us does not end it
	return w, w.cmd.Start()
}

// end is called when the lab is down, or shall stay up.
func (w *watchdog) end(stay bool) error {
	if stay {
		_, _ = w.pipe.Write([]byte("stay\n"))
	}
	_ = w.pipe.Close()
	return w.cmd.Wait()
}

// guard is the watchdog itself.
func guard(ctx context.Context, c *call) error {
	over := make(chan string, 1)
	go func() {
		said, _ := io.ReadAll(io.LimitReader(os.Stdin, 64))
		over <- string(said)
	}()
	late := time.NewTimer(c.lasts)
	defer late.Stop()
	select {
	case said := <-over:
		if said != "" {
			return nil
		}
	case <-late.C:
		fmt.Fprintf(c.stderr, "lab: the run took longer than %v: its lab is taken down\n", c.lasts)
	case <-ctx.Done():
	}
	l, err := topology.Find(c.lab)
	if err != nil {
		return nil // it is down
	}
	return errors.Join(ignoreGone(l.Thaw()), l.Down())
}

// ignoreGone: of a lab that is half down, not everything can be thawed.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

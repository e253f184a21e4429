package topology

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hacluster/cmd/internal/lab/wallclock"
)

// pids lists the processes in a network namespace.
func pids(netns string) (ids []int, err error) {
	want, err := os.Stat(netns)
	if err != nil {
		return nil, err
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		have, err := os.Stat(link)
		if err != nil || !os.SameFile(want, have) {
			continue // it ended meanwhile
		}
		id, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// killAll ends all processes of a namespace and waits until they are gone.
func killAll(netns string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		ids, err := pids(netns)
		if errors.Is(err, os.ErrNotExist) || (err == nil && len(ids) == 0) {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v outlive SIGKILL: they hang in the kernel", ids)
		}
		for _, id := range ids {
			_ = syscall.Kill(id, syscall.SIGKILL) // it may have ended by itself
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Pids lists a node's processes.
func (l *Lab) Pids(node string) ([]int, error) { return pids(l.netns(node)) }

// Start starts the daemons of nodes; all when none is named. They outlive this program.
func (l *Lab) Start(nodes ...string) error {
	s, err := l.State()
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		nodes = s.Daemons()
	}
	for _, name := range nodes {
		if err := l.start(&s, name); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	return nil
}

func (l *Lab) start(s *State, name string) error {
	n, err := s.Node(name)
	if err != nil {
		return err
	}
	if n.Role == Host {
		return errors.New("it is the clients' host: no daemon belongs there")
	}
	if ids, err := l.Pids(name); err != nil || len(ids) > 0 {
		return errors.Join(err, fmt.Errorf("it runs already: processes %v", ids))
	}
	log, err := os.OpenFile(l.Log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{filepath.Join(s.Config.Bin, "haclusterd"), "--config", l.File(), "--node", name}
	if s.Config.Plain {
		args = append(args, "--insecure")
	} else {
		args = append(args, "--pki", l.PKI())
	}
	cmd := l.inside(name, args...)
	if s.Config.Clocks {
		if err := wallclock.Create(l.Clock(name)); err != nil {
			return err
		}
		cmd.Env = append(os.Environ(), wallclock.Env(l.Clock(name)))
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	l.reap.Go(func() { _ = cmd.Wait() }) // how it ended stands in its log
	return nil
}

// Kill ends all processes of a node at once.
func (l *Lab) Kill(node string) error { return killAll(l.netns(node)) }

// Stop ends a node's daemon in order.
func (l *Lab) Stop(node string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for first := true; ; first = false {
		ids, err := l.Pids(node)
		if err != nil || len(ids) == 0 {
			return err
		}
		if first {
			for _, id := range ids {
				_ = syscall.Kill(id, syscall.SIGTERM)
			}
		}
		if time.Now().After(deadline) {
			err := l.signal(node, syscall.SIGQUIT) // its goroutines tell where it waits
			return errors.Join(fmt.Errorf("%s did not stop within %v of SIGTERM: see its goroutines in its log", node, patience), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Pause stops all processes of a node as they stand.
func (l *Lab) Pause(node string) error { return l.signal(node, syscall.SIGSTOP) }

// Resume lets them go on.
func (l *Lab) Resume(node string) error { return l.signal(node, syscall.SIGCONT) }

func (l *Lab) signal(node string, sig syscall.Signal) error {
	ids, err := l.Pids(node)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return fmt.Errorf("nothing runs on %s", node)
	}
	for _, id := range ids {
		if err := syscall.Kill(id, sig); err != nil {
			return fmt.Errorf("signal %d to process %d of %s: %w", sig, id, node, err)
		}
	}
	return nil
}

// Frozen reports whether a node has processes and each thread of each stands still.
func (l *Lab) Frozen(node string) (bool, error) {
	ids, err := l.Pids(node)
	if err != nil || len(ids) == 0 {
		return false, err
	}
	for _, id := range ids {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", id))
		if err != nil || len(stats) == 0 {
			return false, err
		}
		for _, s := range stats {
			b, err := os.ReadFile(s)
			if err != nil {
				continue // the thread ended
			}
			// pid (name, which may contain anything) state ...
			if _, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " "); !ok || rest[0] != 'T' {
				return false, nil
			}
		}
	}
	return true, nil
}

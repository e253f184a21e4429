package effect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Subreaper has everything that a child of this process leaves behind become a child of this process, however it daemonizes.
func Subreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the subreaper of services: %w", err)
	}
	return nil
}

// proc is one process as /proc tells it.
type proc struct {
	pid, parent int
	zombie      bool
}

// processes are all of the machine, or of the PID namespace.
func processes() ([]proc, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []proc
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // gone
		}
		// pid (name, which may hold anything) state parent ...
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(string(f[1]))
		all = append(all, proc{pid, parent, f[0][0] == 'Z' || f[0][0] == 'X'})
	}
	return all, nil
}

// Descendants are all living processes below this one, but for those for which spare says so, and all below them.
func Descendants(spare func(pid int) bool) ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]proc{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	var out []int
	for next := children[os.Getpid()]; len(next) > 0; {
		p := next[0]
		next = next[1:]
		if spare != nil && spare(p.pid) {
			continue
		}
		if !p.zombie {
			out = append(out, p.pid)
		}
		next = append(next, children[p.pid]...)
	}
	return out, nil
}

// Reap waits for children that have ended and that nobody else waits for.
func Reap(spare func(pid int) bool) {
	all, err := processes()
	if err != nil {
		return
	}
	for _, p := range all {
		if p.parent == os.Getpid() && p.zombie && (spare == nil || !spare(p.pid)) {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}

// pollPause is between two looks at whether processes have ended: most do at once.
const pollPause = 5 * time.Millisecond

// End sends the signal to all descendants but those that Descendants spares, also to those that come up meanwhile, until none is left
// or ctx ends. Children for which waited says so are somebody else's to wait for.
func End(ctx context.Context, sig unix.Signal, spare, waited func(pid int) bool) error {
	told := map[int]bool{}
	for {
		left, err := Descendants(spare)
		if err != nil || len(left) == 0 {
			return err
		}
		for _, pid := range left {
			if sig == unix.SIGKILL || !told[pid] {
				told[pid] = true
				if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("signal process %d: %w", pid, err)
				}
			}
		}
		Reap(waited)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes are left after %v, one is %d", len(left), sig, left[0])
		case <-time.After(pollPause):
		}
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pause stops nodes and returns when they stand still: kill returns before the threads of the process have noticed,
// and what they answer meanwhile is answered in time.
func (r *rig) pause(nodes ...string) {
	r.t.Helper()
	r.signal(syscall.SIGSTOP, nodes...)
	deadline := time.Now().Add(patience)
	for _, n := range nodes {
		for !still(r.Pid(n)) {
			if time.Now().After(deadline) {
				r.t.Fatalf("%s does not stand still", n)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// still reports whether every thread of a process is stopped.
func still(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			return false
		}
		// The state follows the name, which may hold anything but ends with the last parenthesis.
		if rest := string(b[strings.LastIndexByte(string(b), ')')+1:]); !strings.HasPrefix(rest, " T") {
			return false
		}
	}
	return err == nil && len(stats) > 0
}

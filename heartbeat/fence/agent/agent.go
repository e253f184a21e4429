// Package agent runs fence agents: programs that speak the FenceAgentAPI of ClusterLabs, as fence_ipmilan and its siblings do. Options
// are given as name=value lines on standard input, never as arguments, which everybody on the machine can read; exit codes are answers.
// It decides nothing and retries nothing (package fence does), and it ends whatever it started: an agent runs below a process of its own
// (Hold), which is the subreaper of all that the agent starts and kills it when the agent has ended, takes too long, is not to go on, or
// when the daemon is gone.
//
//	daemon --Runner.Run--> haclusterd fence (Hold) --> fence_ipmilan --> ipmitool ...
//	          options on stdin; its end: kill      <-- exit code, output (bounded)
//
// What agents say is kept up to a bound, for events and answers, without the values of options that are secret.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/heartbeat/fence"
)

// Call is one use of an agent.
type Call struct {
	Agent   string // its name, found on the PATH and in the folders of administrators' programs, or its path
	Action  string
	Node    string // is told as nodename
	Options map[string]string
	// Limit is how long it may take. Then it is killed, and has failed.
	Limit time.Duration
}

// Result is what became of a call.
type Result struct {
	Exit int // -1: it did not end by itself, or did not begin
	// Text is what it said, for people: bounded, printable, without secrets.
	Text string
	// Err says why there is no exit code.
	Err error
}

// The exit codes of the FenceAgentAPI.
const (
	exitDone = 0 // of status: the node is on
	exitOff  = 2 // of status alone
)

// Why tells a failure in one line.
func (r Result) Why() string {
	switch {
	case r.Err != nil && r.Text != "":
		return fmt.Sprintf("%v: %s", r.Err, r.Text)
	case r.Err != nil:
		return r.Err.Error()
	case r.Text == "":
		return fmt.Sprintf("exit code %d", r.Exit)
	}
	return fmt.Sprintf("exit code %d: %s", r.Exit, r.Text)
}

// Runner runs agents. It may be used concurrently.
type Runner struct {
	// Holder is the command that runs Hold on its standard input and output.
	Holder []string
	// Dir is the daemon's data directory: what an agent leaves behind that outlives everything is known by it (Clean).
	Dir string

	stuck atomic.Int32 // holders that are waited for after their end

	mu    sync.Mutex
	knows map[string]known // the actions of agents, by name
}

type known struct {
	program program
	actions []string
}

// Off asks for the node to be turned off.
func (r *Runner) Off(ctx context.Context, c Call) (fence.Answer, string) {
	c.Action = "off"
	if res := r.Run(ctx, c); res.Err != nil || res.Exit != exitDone {
		return fence.Failed, res.Why()
	}
	return fence.Done, ""
}

// Status asks whether the node is on. An agent that does not say that it has a status is not asked.
func (r *Runner) Status(ctx context.Context, c Call) (fence.Answer, string) {
	if has, err := r.Has(ctx, c, "status"); err == nil && !has {
		return fence.NoStatus, ""
	}
	c.Action = "status"
	switch res := r.Run(ctx, c); {
	case res.Err == nil && res.Exit == exitDone:
		return fence.IsOn, ""
	case res.Err == nil && res.Exit == exitOff:
		return fence.IsOff, ""
	default:
		return fence.Failed, res.Why()
	}
}

// Has reports whether the agent says of itself that it knows the action.
func (r *Runner) Has(ctx context.Context, c Call, action string) (bool, error) {
	r.mu.Lock()
	k := r.knows[c.Agent]
	r.mu.Unlock()
	out, err := r.hold(ctx, order{Agent: c.Agent, Action: "metadata", Node: c.Node, Limit: c.Limit, Known: k.program})
	if err != nil || out.Err != "" || out.Program != k.program {
		res := resultOf(out, err)
		if res.Err != nil || res.Exit != exitDone {
			return false, errors.New("metadata: " + res.Why())
		}
		actions, err := actionsOf(out.Metadata)
		if err != nil {
			return false, err
		}
		k = known{out.Program, actions}
		r.mu.Lock()
		if r.knows == nil {
			r.knows = map[string]known{}
		}
		r.knows[c.Agent] = k
		r.mu.Unlock()
	}
	for _, a := range k.actions {
		if a == action {
			return true, nil
		}
	}
	return false, nil
}

// folders are searched beside the PATH, which a daemon may not have them on.
var folders = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Find is the path of an agent.
func Find(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		if err := executable(name); err != nil {
			return "", fmt.Errorf("agent %s: %w", name, err)
		}
		return name, nil
	}
	if p, err := exec.LookPath(name); err == nil && strings.HasPrefix(p, "/") {
		return p, nil
	}
	for _, f := range folders {
		if p := filepath.Join(f, name); executable(p) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("agent %s is not installed on this node: it is neither on the PATH nor in %s", name, strings.Join(folders, ", "))
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return errors.Unwrap(err)
	case info.IsDir() || info.Mode()&0o111 == 0:
		return errors.New("it is no program that can be executed")
	}
	return nil
}

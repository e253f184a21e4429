package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/fence"
)

// Run runs an agent and returns when nothing of it is left. When ctx ends it is killed. It returns also when that cannot be done, for it
// hangs in the kernel, and says so.
func (r *Runner) Run(ctx context.Context, c Call) Result {
	out, err := r.hold(ctx, order{Agent: c.Agent, Action: c.Action, Node: c.Node, Options: c.Options, Limit: c.Limit})
	return resultOf(out, err)
}

func resultOf(out outcome, err error) Result {
	res := Result{Exit: out.Exit, Text: out.Text, Err: err}
	if err == nil && out.Err != "" {
		res.Err = errors.New(out.Err)
	}
	if res.Err != nil {
		res.Exit = -1
	}
	return res
}

// clip keeps the end, where programs say why they failed.
func clip(s string) string {
	if n := len(s) - fence.MaxText/2; n > 0 {
		return "..." + string(bytes.ToValidUTF8([]byte(s[n+3:]), nil))
	}
	return s
}

// hold has a holder carry the order out. A holder that does not answer in time is killed, and what it held by its mark.
func (r *Runner) hold(ctx context.Context, o order) (out outcome, err error) {
	if n := r.stuck.Load(); n >= maxStuck {
		return outcome{Exit: -1}, fmt.Errorf("%d processes that held agents hang in the kernel and cannot be killed: look at the mounts that agents and password files are on", n)
	}
	mark := fmt.Sprintf("%s:%s", mark(r.Dir), rand.Text())
	cmd := exec.Command(r.Holder[0], r.Holder[1:]...)
	cmd.Env, cmd.Stderr = append(environment(), mark), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return out, err
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		return out, err
	}
	if err := cmd.Start(); err != nil {
		return out, fmt.Errorf("start the process that holds the agent: %w", err)
	}
	said := make(chan said, 1)
	go func() { said <- speak(in, answer, o) }()
	late := time.NewTimer(o.Limit + 2*killLimit)
	defer late.Stop()
	end := ctx.Done()
	for answered := false; !answered; {
		select {
		case s := <-said:
			out, err, answered = s.out, s.err, true
		case <-end:
			in.Close() // it kills and answers
			late.Reset(2 * killLimit)
			end = nil
		case <-late.C:
			err, answered = errors.New("the process that holds it does not answer"), true
		}
	}
	in.Close()
	if err == nil {
		return out, r.wait(cmd)
	}
	_ = cmd.Process.Kill()
	if stuck := r.wait(cmd); errors.Is(stuck, errStuck) {
		err = errors.Join(err, stuck)
	}
	kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	return outcome{Exit: -1}, errors.Join(fmt.Errorf("the process that holds it: %w", err), killMarked(kill, mark))
}

// maxStuck bounds how many holders may be left behind that hang in the kernel.
const maxStuck = 8

var errStuck = errors.New("it hangs in the kernel and cannot be killed")

// wait waits for a holder that has answered or was killed, but not for one that hangs.
func (r *Runner) wait(cmd *exec.Cmd) error {
	r.stuck.Add(1)
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		r.stuck.Add(-1)
		ended <- err
	}()
	late := time.NewTimer(killLimit)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		return errStuck
	}
}

// said is a holder's answer.
type said struct {
	out outcome
	err error
}

func speak(in io.Writer, answer io.Reader, o order) (s said) {
	b, err := json.Marshal(o)
	if err == nil {
		_, err = in.Write(append(b, '\n'))
	}
	if err == nil {
		err = json.NewDecoder(io.LimitReader(answer, maxOrder)).Decode(&s.out)
	}
	s.err = err
	return s
}

// environment is what agents inherit: nothing that is the daemon's alone.
func environment() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// mark is in the environment of everything that an agent of this data directory's daemon is.
func mark(dir string) string { return "HACLUSTER_FENCE=" + dir }

// Clean kills what a daemon of this data directory left behind that was killed together with its holders: an agent that nobody waits
// for any more is not to turn a node off later.
func Clean(ctx context.Context, dir string) error { return killMarked(ctx, mark(dir)+":") }

// killMarked kills every process whose environment has a variable that begins so, until none is left.
func killMarked(ctx context.Context, mark string) error {
	for {
		names, err := filepath.Glob("/proc/[0-9]*/environ")
		if err != nil {
			return err
		}
		left := 0
		for _, name := range names {
			b, err := os.ReadFile(name)
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil || pid == os.Getpid() || !bytes.Contains(append([]byte{0}, b...), []byte("\x00"+mark)) {
				continue
			}
			left++
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of an agent cannot be killed", left)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/resource/effect"
)

// order is what a holder is to do, once. Closing its standard input ends it. It is the holder that looks for the agent and reads the
// secrets: the files may lie on a mount that never answers, and a process can be given up, a daemon's thread cannot.
type order struct {
	Agent   string            `json:"agent"`
	Action  string            `json:"action"`
	Node    string            `json:"node"`
	Options map[string]string `json:"options"`
	Limit   time.Duration     `json:"limit"`
	// Known is the program whose description of itself is known already: metadata of it is not asked for again.
	Known program `json:"known"`
}

// program is an agent in one version.
type program struct {
	Path    string `json:"path"`
	Changed int64  `json:"changed"` // when, in ns since 1970
}

// outcome is the holder's answer, given when nothing runs any more, or nothing that can be ended.
type outcome struct {
	Exit     int     `json:"exit"`
	Text     string  `json:"text"` // what it said, without secrets
	Metadata string  `json:"metadata,omitempty"`
	Program  program `json:"program"`
	Err      string  `json:"err,omitempty"`
}

// maxOrder bounds a message between the daemon and a holder.
const maxOrder = 1 << 20

// killLimit is how long it may take until what was killed is gone. What hangs in the kernel for longer acts no more: it never returns
// from there to its program.
const killLimit = 5 * time.Second

// Hold is a holder's whole life: it runs one agent, as read from in, and answers on out. The process is to end then: a thread of it may
// wait for a file that never comes.
func Hold(in io.Reader, out io.Writer) error {
	if err := effect.Subreaper(); err != nil {
		return err
	}
	r := bufio.NewReaderSize(in, 64<<10)
	line, err := readLine(r)
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("the daemon's message: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, r) // until the daemon closes it, or is gone
		close(gone)
		cancel()
	}()
	res := carryOut(ctx, o)
	select {
	case <-gone:
		res.Err = "it was killed: it was not to go on"
	default:
	}
	return json.NewEncoder(out).Encode(res) // a daemon that is gone does not read it
}

func readLine(r *bufio.Reader) (line []byte, err error) {
	for more := true; more; {
		var part []byte
		if part, more, err = r.ReadLine(); err != nil {
			return nil, fmt.Errorf("the daemon's message: %w", err)
		}
		if line = append(line, part...); len(line) > maxOrder {
			return nil, fmt.Errorf("the daemon's message has more than %d bytes", maxOrder)
		}
	}
	return line, nil
}

// carryOut runs the agent until it ends or ctx does, and then kills whatever is left of it.
func carryOut(ctx context.Context, o order) (res outcome) {
	res.Exit = -1
	var pipes pipes
	defer pipes.close()
	in, out, errs := pipes.open(), pipes.open(), pipes.open()
	if pipes.err != nil {
		res.Err = pipes.err.Error()
		return res
	}
	begun := make(chan begun, 1)
	go begin(ctx, o, in, out, errs, begun)
	var cmd *exec.Cmd
	var secret []string
	ended := make(chan error, 1)
	stdout, stderr := &bounded{most: maxOutput}, &bounded{most: maxOutput, last: true}
	if o.Action == "metadata" {
		stdout.most = maxMetadata
	}
	for over := false; !over; {
		select {
		case b := <-begun:
			if res.Program = b.program; b.cmd == nil {
				if b.err != nil {
					res.Err = b.err.Error()
				}
				return res
			}
			cmd, secret, begun = b.cmd, b.secret, nil
			in.r.Close()
			out.w.Close()
			errs.w.Close()
			go func() {
				_, _ = io.WriteString(in.w, b.input) // an agent need not read it
				in.w.Close()
			}()
			read(out.r, stdout)
			read(errs.r, stderr)
			go func() { ended <- cmd.Wait() }()
		case err := <-ended:
			res.Exit, res.Err = exitOf(err)
			over = true
		case <-ctx.Done():
			res.Err = fmt.Sprintf("it was killed: it took longer than %v", o.Limit)
			if cmd == nil {
				res.Err = fmt.Sprintf("it did not begin: looking for it, or reading what its options name, took longer than %v: is it on a mount that does not answer?", o.Limit)
			}
			over = true
		}
	}
	kill, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	waited := func(pid int) bool { return cmd != nil && pid == cmd.Process.Pid }
	if err := effect.End(kill, unix.SIGKILL, nil, waited); err != nil {
		res.Exit, res.Err = -1, strings.TrimPrefix(res.Err+"; "+err.Error(), "; ")
	}
	said := stdout.until(kill)
	if o.Action == "metadata" {
		res.Metadata = said
	}
	res.Text = clip(say(secret, stderr.until(kill), said))
	return res
}

// begun is an agent that runs; or why it does not: err, or nothing if it need not.
type begun struct {
	cmd     *exec.Cmd
	program program
	input   string
	secret  []string
	err     error
}

// begin starts the agent, on a thread of its own that lives as long as we do: its death kills the agent.
func begin(ctx context.Context, o order, in, out, errs pipe, to chan<- begun) {
	runtime.LockOSThread()
	b := begun{}
	if b.program, b.err = look(o.Agent); b.err == nil && (o.Action != "metadata" || b.program != o.Known) {
		var options map[string]string
		if options, b.secret, b.err = resolved(o.Options); b.err == nil {
			b.input = input(o, options)
			b.cmd, b.err = start(ctx, b.program.Path, in, out, errs)
		}
	}
	to <- b
	select {}
}

// start starts the program, unless it is too late.
func start(ctx context.Context, path string, in, out, errs pipe) (*exec.Cmd, error) {
	cmd := exec.Command(path)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", in.r, out.w, errs.w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
	return cmd, nil
}

// look finds the agent.
func look(name string) (p program, err error) {
	if p.Path, err = Find(name); err != nil {
		return p, err
	}
	info, err := os.Stat(p.Path)
	if err != nil {
		return p, err
	}
	p.Changed = info.ModTime().UnixNano()
	return p, nil
}

func exitOf(err error) (code int, why string) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, ""
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), ""
	}
	return -1, err.Error()
}

// pipe is one, and pipes are several that are closed together. They are files, so that waiting for the agent does not wait for those
// that inherited its output.
type pipe struct{ r, w *os.File }

type pipes struct {
	all []pipe
	err error
}

func (p *pipes) open() pipe {
	r, w, err := os.Pipe()
	if err != nil {
		p.err = err
		return pipe{}
	}
	p.all = append(p.all, pipe{r, w})
	return p.all[len(p.all)-1]
}

func (p *pipes) close() {
	for _, q := range p.all {
		q.r.Close()
		q.w.Close()
	}
}

// bounded keeps the first bytes of an output, or the last, and takes all.
type bounded struct {
	most int
	last bool
	done chan struct{} // closed at the end of the output; nil: there is none

	mu sync.Mutex
	b  []byte
}

func read(r io.Reader, w *bounded) {
	done := make(chan struct{})
	w.done = done
	go func() {
		defer close(done)
		_, _ = io.Copy(w, r)
	}()
}

func (w *bounded) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.last {
		w.b = append(w.b, p[:min(len(p), w.most-len(w.b))]...)
		return len(p), nil
	}
	if w.b = append(w.b, p...); len(w.b) > w.most {
		w.b = append(w.b[:0], w.b[len(w.b)-w.most:]...)
	}
	return len(p), nil
}

// until waits for the end of the output, which comes when all that had it are dead, or for that of ctx.
func (w *bounded) until(ctx context.Context) string {
	if w.done != nil {
		select {
		case <-w.done:
		case <-ctx.Done():
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ToValidUTF8(string(w.b), "?")
}

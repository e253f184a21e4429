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

// order is what a holder is to do, once. Closing its standard input ends it.
type order struct {
	Path  string        `json:"path"`
	Input string        `json:"input"`
	Limit time.Duration `json:"limit"`
	Keep  int           `json:"keep"` // bytes of standard output, from its beginning
}

// outcome is the holder's answer, given when nothing runs any more.
type outcome struct {
	Exit   int    `json:"exit"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	Err    string `json:"err,omitempty"`
}

// maxOrder bounds a message between the daemon and a holder.
const maxOrder = 1 << 20

// killLimit is how long it may take until what was killed is gone. What hangs in the kernel for longer acts no more: it never returns
// from there to its program.
const killLimit = 5 * time.Second

// Hold is a holder's whole life: it runs one agent, as read from in, and answers on out.
func Hold(in io.Reader, out io.Writer) error {
	runtime.LockOSThread() // the thread whose death kills the agent is to be this one, which lives as long as we do
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
	cmd := exec.Command(o.Path)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", in.r, out.w, errs.w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		res.Err = err.Error()
		return res
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
	in.r.Close()
	out.w.Close()
	errs.w.Close()
	go func() {
		_, _ = io.WriteString(in.w, o.Input) // an agent need not read it
		in.w.Close()
	}()
	stdout, stderr := read(out.r, &bounded{most: o.Keep}), read(errs.r, &bounded{most: maxOutput, last: true})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		res.Exit, res.Err = exitOf(err)
	case <-ctx.Done():
		res.Err = fmt.Sprintf("it was killed: it took longer than %v", o.Limit)
	}
	kill, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	waited := func(pid int) bool { return pid == cmd.Process.Pid }
	if err := effect.End(kill, unix.SIGKILL, nil, waited); err != nil {
		res.Exit, res.Err = -1, strings.TrimPrefix(res.Err+"; "+err.Error(), "; ")
	}
	res.Stdout, res.Stderr = stdout.until(kill), stderr.until(kill)
	return res
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
	done chan struct{} // closed at the end of the output

	mu sync.Mutex
	b  []byte
}

func read(r io.Reader, w *bounded) *bounded {
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		_, _ = io.Copy(w, r)
	}()
	return w
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
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ToValidUTF8(string(w.b), "?")
}

package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// held is a resource as the guard sees it: its holder, and what is outstanding there.
type held struct {
	service string
	order   int
	spec    effect.Spec
	cmd     *exec.Cmd
	gone    chan struct{} // closed when the holder has ended
	free    chan struct{} // closed when its place among the service's resources is free
	down    bool          // nothing of it runs any more; the guard's lock is for it

	mu       sync.Mutex
	in       io.WriteCloser
	last     uint64
	waiting  map[uint64]chan string
	released bool // it holds nothing any more
}

var errHolder = errors.New("the process that holds it has ended")

// hold starts a holder. lock is inherited by it, ended is told when the resource ends by itself.
func hold(d *Do, argv []string, dir string, lock *os.File, ended func(*Ended)) (*held, error) {
	h := &held{service: d.Service, order: d.Order, spec: d.Spec, gone: make(chan struct{}), free: make(chan struct{}), waiting: map[uint64]chan string{}}
	h.cmd = exec.Command(argv[0], argv[1:]...)
	h.cmd.Env = append(os.Environ(), mark(dir), "HACLUSTER_SERVICE="+d.Service, "HACLUSTER_RESOURCE="+d.Spec.Name)
	h.cmd.Stderr, h.cmd.ExtraFiles = os.Stderr, []*os.File{lock}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := h.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the holder of %s: %w", d.Spec, err)
	}
	h.in = in
	go h.read(out, ended)
	return h, nil
}

func (h *held) pid() int { return h.cmd.Process.Pid }

func (h *held) read(out io.Reader, ended func(*Ended)) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var r Reply
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			break
		}
		if r.Ended != nil {
			ended(r.Ended)
		}
		if r.Done != nil {
			h.answer(*r.Done)
		}
	}
	_ = h.cmd.Process.Kill() // it has ended, or speaks nonsense
	_ = h.cmd.Wait()
	close(h.gone)
	h.mu.Lock()
	released := h.released
	h.mu.Unlock()
	if !released {
		ended(&Ended{Service: h.service, Order: h.order, Err: errHolder.Error()})
	}
}

func (h *held) answer(d Done) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.waiting[d.ID]; c != nil {
		delete(h.waiting, d.ID)
		c <- d.Err
	}
}

// do carries an operation out and returns when the holder has answered, has ended, or is late by holderLate.
func (h *held) do(v resource.Verb, limit time.Duration) error {
	return h.doIf(func() bool { return true }, v, limit)
}

// doIf does nothing when may says no. It is asked when nobody else can speak to the holder before us.
func (h *held) doIf(may func() bool, v resource.Verb, limit time.Duration) error {
	c := make(chan string, 1)
	h.mu.Lock()
	if !may() {
		h.mu.Unlock()
		return nil
	}
	h.last++
	id := h.last
	h.waiting[id] = c
	b, err := json.Marshal(Do{ID: id, Service: h.service, Order: h.order, Verb: v, Limit: limit, Spec: h.spec})
	if err == nil {
		_, err = h.in.Write(append(b, '\n')) // a pipe holds far more than what is outstanding
	}
	h.mu.Unlock()
	if err != nil {
		return errHolder
	}
	late := time.NewTimer(limit + holderLate)
	defer late.Stop()
	select {
	case e := <-c:
		if e != "" {
			return errors.New(e)
		}
		return nil
	case <-h.gone:
		return errHolder
	case <-late.C:
		return errors.New("the process that holds it does not answer")
	}
}

const holderLate = 50 * time.Millisecond

// release has a holder end that holds nothing any more.
func (h *held) release() {
	h.mu.Lock()
	h.released = true
	_ = h.in.Close()
	h.mu.Unlock()
	select {
	case <-h.gone:
	case <-time.After(killPause):
		_ = h.cmd.Process.Kill()
		<-h.gone
	}
}

// awaitFree waits for the place of what is down.
func (h *held) awaitFree(limit time.Duration) {
	select {
	case <-h.free:
	case <-time.After(limit):
	}
}

// kill ends the resource by its holder, or without it: of a holder that is gone or does not answer, the processes are ours, and the rest can
// be undone by anybody.
func (h *held) kill(ctx context.Context, spare func(pid int) bool) error {
	left := func() time.Duration {
		at, _ := ctx.Deadline()
		return max(time.Until(at), time.Millisecond)
	}
	err := h.do(resource.Kill, max(left()/2, time.Millisecond))
	if err == nil {
		return nil
	}
	_ = h.cmd.Process.Kill()
	select {
	case <-h.gone:
	case <-ctx.Done():
		return fmt.Errorf("%s: its holder, process %d, cannot be killed: %w", h.spec, h.pid(), err)
	}
	return without(ctx, h.spec, spare)
}

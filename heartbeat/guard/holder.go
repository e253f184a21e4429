package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// Hold is a holder's whole life: it carries operations on one resource out, as read from in, and answers on out. At the end of in, which
// is the end of the guard, it kills the resource, over and over until nothing is left.
func Hold(in io.Reader, out io.Writer, log *slog.Logger) error {
	if err := effect.Subreaper(); err != nil {
		return err
	}
	unix.CloseOnExec(lockFD) // or the lock would be held by what we start
	h := &holding{out: json.NewEncoder(out), log: log}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var d Do
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return fmt.Errorf("a message of the guard: %w", err)
		}
		if h.e == nil {
			e, err := effect.New(d.Spec, log)
			if err != nil {
				h.say(Reply{Done: &Done{ID: d.ID, Err: err.Error()}})
				continue
			}
			h.e = e
			go h.watch(d)
		}
		h.begin(d)
	}
	for h.e != nil {
		ctx, cancel := context.WithTimeout(context.Background(), killPause)
		err := h.e.Kill(ctx)
		cancel()
		if err == nil {
			return nil
		}
		log.Error("a resource without its guard cannot be killed", "error", err)
		time.Sleep(killPause)
	}
	return nil
}

// lockFD is where a holder inherits the guard's lock: the first of ExtraFiles.
const lockFD = 3

// killPause bounds one try to kill, and is the pause before the next.
const killPause = time.Second

// holding is one resource.
type holding struct {
	e   effect.Effect
	log *slog.Logger

	mu  sync.Mutex // for out and what is outstanding
	out *json.Encoder
	end context.CancelFunc
	was chan struct{} // closed when that has ended
}

func (h *holding) say(r Reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.out.Encode(r) // a guard that is gone is seen at the other pipe
}

func (h *holding) watch(d Do) {
	for err := range h.e.Ended() {
		h.say(Reply{Ended: &Ended{Service: d.Service, Order: d.Order, Err: err.Error()}})
	}
}

// begin carries an operation out. What is outstanding is ended first; a kill does not wait for that.
func (h *holding) begin(d Do) {
	ctx, cancel := context.WithTimeout(context.Background(), d.Limit)
	was, done := h.was, make(chan struct{})
	if h.end != nil {
		h.end()
	}
	h.end, h.was = cancel, done
	go func() {
		defer close(done)
		defer cancel()
		if was != nil && d.Verb != resource.Kill {
			<-was
		}
		reply := Done{ID: d.ID}
		if err := h.do(ctx, d.Verb); err != nil {
			reply.Err = err.Error()
		}
		h.say(Reply{Done: &reply})
	}()
}

func (h *holding) do(ctx context.Context, v resource.Verb) error {
	switch v {
	case resource.Start:
		return h.e.Start(ctx)
	case resource.Stop:
		return h.e.Stop(ctx)
	case resource.Monitor:
		return h.e.Monitor(ctx)
	case resource.Kill:
		return h.e.Kill(ctx)
	}
	return fmt.Errorf("unknown operation %q", v)
}

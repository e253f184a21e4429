package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/api"
)

// What --watch may be asked for.
const (
	defaultInterval = time.Second
	minInterval     = 100 * time.Millisecond
)

// watchStatus looks again and again until ctx ends. It goes on when a node goes away, with the next server: that is
// what one watches for.
func (a *app) watchStatus(ctx context.Context, volume string, every time.Duration) error {
	if every < minInterval {
		return api.BadRequest("--interval %v: %v or more is wanted", every, minInterval)
	}
	screen := &screen{out: a.out, redraw: a.output == "table" && isTerminal(a.out)}
	a.out = screen
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		server := ""
		err := a.ask(ctx, func(ctx context.Context, c *api.Client) error {
			server = c.Server
			return a.status(ctx, c, volume)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && api.KindOf(err) != api.KindUnavailable:
			return err
		case err != nil:
			a.avoid(server)
			fmt.Fprintf(screen, "ha-admin: %s\n", oneLine(err.Error()))
		}
		if err := screen.show(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// screen gathers one look at a time. A terminal shows it in place of the one before, so that nothing flickers or
// scrolls; elsewhere looks follow each other with an empty line between, for a file to keep.
type screen struct {
	out    io.Writer
	redraw bool
	next   bytes.Buffer
	shown  bool
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) { return s.next.Write(p) }

func (s *screen) show() error {
	var b bytes.Buffer
	switch {
	case s.redraw:
		b.WriteString("\x1b[H") // home; each line clears its own rest
		for line := range bytes.Lines(s.next.Bytes()) {
			b.Write(bytes.TrimSuffix(line, []byte("\n")))
			b.WriteString("\x1b[K\n")
		}
		b.WriteString("\x1b[J")
	default:
		if s.shown {
			b.WriteByte('\n')
		}
		b.Write(s.next.Bytes())
	}
	if s.redraw && !s.shown {
		b = *bytes.NewBuffer(append([]byte("\x1b[2J"), b.Bytes()...))
	}
	s.shown = true
	s.next.Reset()
	_, err := s.out.Write(b.Bytes())
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// prefer has a server asked first from now on, avoid last: one that was stopped takes its share of the time each time
// that it is tried.
func (a *app) prefer(server string) { a.order(server, 0) }
func (a *app) avoid(server string)  { a.order(server, len(a.servers)-1) }

func (a *app) order(server string, to int) {
	if i := slices.Index(a.servers, server); i >= 0 {
		a.servers = slices.Insert(slices.Delete(slices.Clone(a.servers), i, i+1), to, server)
	}
}

// reconnectPause is between two tries to follow the events.
const reconnectPause = 500 * time.Millisecond

// followEvents has no limit but the operator's patience. When the node that tells goes away, the next server is asked,
// and what was told already is left out.
func (a *app) followEvents(ctx context.Context) error {
	f := &follower{print: a.printEvent}
	told := ""
	for {
		err := a.followOnce(ctx, f)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || f.err != nil: // the reader of our output is gone
			return f.err
		case api.KindOf(err) != api.KindUnavailable || !f.told: // it never worked: no use in going on
			return err
		case err.Error() != told:
			told = err.Error()
			fmt.Fprintf(a.err, "ha-admin: %s: trying again\n", oneLine(told))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnectPause):
		}
	}
}

func (a *app) followOnce(ctx context.Context, f *follower) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	f.begin()
	err = c.Events(ctx, true, f.event)
	a.avoid(c.Server)
	if err == nil {
		err = api.Unavailable("%s ended the events: it stops, or its reader was too slow", c.Server)
	}
	return err
}

// follower leaves out what an earlier server has told. The cluster's own history has numbers that are the same on every
// node; what only one node noticed is told if it is newer than anything told before.
type follower struct {
	print  func(api.Event) error
	told   bool // anything at all
	number uint64
	newest time.Time // of what was told
	resume time.Time // newest when the present server was found; zero: it is the first
	err    error     // of print
}

func (f *follower) begin() { f.resume = f.newest }

var errOutput = errors.New("the output cannot be written")

func (f *follower) event(e api.Event) error {
	switch {
	case e.Number > 0 && e.Number <= f.number, e.Number == 0 && !f.resume.IsZero() && !e.At.After(f.resume):
		return nil
	}
	f.told = true
	f.number = max(f.number, e.Number)
	if e.At.After(f.newest) {
		f.newest = e.At
	}
	if err := f.print(e); err != nil {
		f.err = fmt.Errorf("%w: %w", errOutput, err)
	}
	return f.err
}

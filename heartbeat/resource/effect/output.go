package effect

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// What a program may have in the log: what it says beyond is counted, not kept.
const (
	maxLine     = 1 << 10 // bytes
	linesBurst  = 100
	linesSecond = 20
)

// output is a pipe for a program and all that it leaves behind. The program is given a file of its own, so that waiting for it does not
// wait for those that inherited it. Whoever starts the program closes w; the pipe is read until the last of them ends.
func output(log *slog.Logger, what string) (w *os.File, last *tail, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("a pipe for the output of %s: %w", what, err)
	}
	last = &tail{}
	go copyLines(r, log, what, last, time.Now)
	return w, last, nil
}

// tail is the last line, for an error message.
type tail struct {
	mu   sync.Mutex
	line string
}

func (t *tail) set(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line = s
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.line == "" {
		return ""
	}
	return ": " + t.line
}

// copyLines logs lines until the end of r, at most linesBurst at once and linesSecond a second in the long run.
func copyLines(r io.ReadCloser, log *slog.Logger, what string, last *tail, now func() time.Time) {
	defer r.Close()
	b := bufio.NewReaderSize(r, maxLine)
	room, dropped, since := float64(linesBurst), 0, now()
	for {
		part, more, err := b.ReadLine()
		if err != nil {
			break
		}
		line := strings.ToValidUTF8(string(part), "?")
		for more && err == nil { // the rest of a long line goes
			_, more, err = b.ReadLine()
		}
		last.set(line)
		at := now()
		room = min(room+at.Sub(since).Seconds()*linesSecond, linesBurst)
		since = at
		if room < 1 {
			dropped++
			continue
		}
		room--
		if dropped > 0 {
			log.LogAttrs(context.Background(), slog.LevelWarn, "output left out", slog.String("of", what), slog.Int("lines", dropped))
			dropped = 0
		}
		log.LogAttrs(context.Background(), slog.LevelInfo, "output", slog.String("of", what), slog.String("line", line))
	}
	if dropped > 0 {
		log.Warn("output left out", "of", what, "lines", dropped)
	}
}

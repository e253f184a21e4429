package membership

import (
	"bytes"
	"log"
	"log/slog"
	"sync"
	"time"
)

// gossipLog brings memberlist's lines into ours. What peers do can make it talk without end, so warnings are limited
// and the rest is for debugging: what matters to an operator, this package says itself.
type gossipLog struct {
	logger *slog.Logger

	mu         sync.Mutex
	window     time.Time
	lines      int
	suppressed int
}

// maxGossipLines is how many warnings of memberlist pass per logInterval.
const maxGossipLines = 3

func newGossipLog(l *slog.Logger) *log.Logger {
	return log.New(&gossipLog{logger: l.With("from", "memberlist")}, "", 0)
}

// Write takes one line, "[LEVEL] memberlist: text".
func (g *gossipLog) Write(p []byte) (int, error) {
	line := bytes.TrimSpace(p)
	level := slog.LevelDebug
	if rest, ok := bytes.CutPrefix(line, []byte("[")); ok {
		name, text, _ := bytes.Cut(rest, []byte("] memberlist: "))
		if s := string(name); s == "ERR" || s == "ERROR" {
			level = slog.LevelWarn
		}
		if text != nil {
			line = text
		}
	}
	if level == slog.LevelDebug {
		g.logger.Debug(string(line))
	} else if suppressed, pass := g.pass(time.Now()); pass {
		g.logger.Warn("gossip", "said", string(line), "suppressed", suppressed)
	}
	return len(p), nil
}

func (g *gossipLog) pass(now time.Time) (suppressed int, pass bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.window) >= logInterval {
		g.window, g.lines = now, 0
	}
	if g.lines >= maxGossipLines {
		g.suppressed++
		return 0, false
	}
	g.lines++
	suppressed, g.suppressed = g.suppressed, 0
	return suppressed, true
}

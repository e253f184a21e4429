package identity

import (
	"log/slog"
	"sync"
	"time"
)

// limitedLog writes at most one line per reason and interval: what strangers do must not fill a disk. Reasons are
// constants of this package, so the map does not grow.
type limitedLog struct {
	logger   *slog.Logger
	interval time.Duration

	mu    sync.Mutex
	lines map[string]*logLine
}

type logLine struct {
	last       time.Time
	suppressed int
	total      uint64
}

func newLimitedLog(l *slog.Logger, interval time.Duration) *limitedLog {
	return &limitedLog{logger: l, interval: interval, lines: map[string]*logLine{}}
}

func (l *limitedLog) warn(reason string, args ...any) {
	suppressed, due := l.due(reason, time.Now())
	if due {
		l.logger.Warn(reason, append(args, "suppressed", suppressed)...)
	}
}

func (l *limitedLog) due(reason string, now time.Time) (suppressed int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.lines[reason]
	if line == nil {
		line = &logLine{}
		l.lines[reason] = line
	}
	line.total++
	if !line.last.IsZero() && now.Sub(line.last) < l.interval {
		line.suppressed++
		return 0, false
	}
	suppressed, line.suppressed, line.last = line.suppressed, 0, now
	return suppressed, true
}

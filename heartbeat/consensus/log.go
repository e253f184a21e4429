package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// bridge lets raft and raft-wal log through slog. Their words are for those who debug raft: all goes to debug level,
// errors to warn, because a peer that is down is no error of this node, and a message that repeats with every
// heartbeat once per ten seconds. What an operator must know is logged by this package itself.
type bridge struct {
	to     *slog.Logger
	name   string
	args   []any
	recent *repeats
}

var _ hclog.Logger = (*bridge)(nil)

func newBridge(to *slog.Logger) *bridge {
	return &bridge{to: to, recent: &repeats{last: map[string]time.Time{}}}
}

func (b *bridge) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error && b.recent.first(msg) {
		to = slog.LevelWarn
	}
	if b.to.Enabled(context.Background(), to) {
		b.to.Log(context.Background(), to, "raft: "+msg, b.attrs(args)...)
	}
}

// attrs renders hclog's lazily formatted values, which slog does not know.
func (b *bridge) attrs(args []any) []any {
	all := make([]any, 0, len(b.args)+len(args))
	for _, a := range append(append(all, b.args...), args...) {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			a = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		all = append(all, a)
	}
	return all
}

func (b *bridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }
func (b *bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

func (b *bridge) IsTrace() bool { return b.debug() }
func (b *bridge) IsDebug() bool { return b.debug() }
func (b *bridge) IsInfo() bool  { return b.debug() }
func (b *bridge) IsWarn() bool  { return b.debug() }
func (b *bridge) IsError() bool { return b.to.Enabled(context.Background(), slog.LevelWarn) }
func (b *bridge) debug() bool   { return b.to.Enabled(context.Background(), slog.LevelDebug) }

func (b *bridge) ImpliedArgs() []any   { return b.args }
func (b *bridge) Name() string         { return b.name }
func (b *bridge) SetLevel(hclog.Level) {}
func (b *bridge) GetLevel() hclog.Level {
	if b.debug() {
		return hclog.Debug
	}
	return hclog.Error
}

func (b *bridge) With(args ...any) hclog.Logger {
	c := *b
	c.args = append(append([]any{}, b.args...), args...)
	return &c
}

func (b *bridge) Named(name string) hclog.Logger {
	if b.name != "" {
		name = b.name + "." + name
	}
	return b.ResetNamed(name)
}

func (b *bridge) ResetNamed(name string) hclog.Logger {
	c := *b
	c.name = name
	return &c
}

func (b *bridge) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(b.to.Handler(), slog.LevelDebug)
}

func (b *bridge) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return b.StandardLogger(o).Writer()
}

// repeats remembers when each message was last let through. The messages are raft's constants: a few dozen.
type repeats struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (r *repeats) first(msg string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if at, ok := r.last[msg]; ok && now.Sub(at) < 10*time.Second {
		return false
	}
	if len(r.last) > 1000 {
		clear(r.last)
	}
	r.last[msg] = now
	return true
}

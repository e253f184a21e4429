package identity

import (
	"log/slog"
	"testing"
	"time"
)

func TestRefusalsAreCountedAlsoWhenTheLogIsSilent(t *testing.T) {
	l := newLimitedLog(slog.New(slog.DiscardHandler), time.Hour)
	for range 3 {
		l.warn("a reason")
	}
	l.warn("another")
	if got := l.totals(); len(got) != 2 || got["a reason"] != 3 || got["another"] != 1 {
		t.Errorf("counted %v", got)
	}
}

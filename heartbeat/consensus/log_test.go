package consensus

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// testLogger shows raft's words with RAFT_TEST_LOG=1.
func testLogger(t testing.TB) *slog.Logger {
	if os.Getenv("RAFT_TEST_LOG") == "" {
		return discard
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRaftErrorsThatRepeatAreWarnedOfOnce(t *testing.T) {
	var out lockedBuffer
	b := newBridge(slog.New(slog.NewTextHandler(&out, nil)))
	named := b.Named("raft").With("node", "a")
	for i := range 5 {
		named.Error("failed to heartbeat to", "peer", hclog.Fmt("%d!", i))
	}
	named.Warn("not for operators")
	named.Info("nor this")
	got := out.String()
	if n := strings.Count(got, "failed to heartbeat to"); n != 1 || !strings.Contains(got, "level=WARN") {
		t.Errorf("%d lines, want one warning:\n%s", n, got)
	}
	for _, want := range []string{"node=a", fmt.Sprintf("peer=%s", "0!")} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %s", want, got)
		}
	}
	if strings.Contains(got, "operators") || strings.Contains(got, "nor this") {
		t.Errorf("chatter above debug level:\n%s", got)
	}
}

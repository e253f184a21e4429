package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a state machine that remembers its commands.
type journal struct {
	mu       sync.Mutex
	commands []string
	restored int
}

func (j *journal) Apply(_, _ uint64, command []byte) any {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commands = append(j.commands, string(command))
	return len(j.commands)
}

func (j *journal) Snapshot() ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return json.Marshal(j.commands)
}

func (j *journal) Restore(b []byte) error {
	var commands []string
	if err := json.Unmarshal(b, &commands); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commands = commands
	j.restored++
	return nil
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.commands...)
}

// tcp is a StreamLayer over loopback.
type tcp struct{ net.Listener }

func (tcp) Dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func listen(t testing.TB, address string) tcp {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return tcp{l}
}

// member is one node of a test group; it can be closed and opened again.
type member struct {
	*Raft
	cfg     Config
	journal *journal
	open    bool
}

// newMember prepares a node over loopback TCP with a directory of its own.
func newMember(t testing.TB, name string) *member {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	return &member{cfg: Config{
		ID: name + "-1", Address: l.Addr().String(), Cluster: "test", Stream: l,
		Dir: filepath.Join(t.TempDir(), "raft"), Logger: testLogger(t),
		Heartbeat: 100 * time.Millisecond, SnapshotInterval: 20 * time.Millisecond,
	}}
}

func (m *member) start(t testing.TB) {
	t.Helper()
	if m.cfg.Stream == nil {
		m.cfg.Stream = listen(t, m.cfg.Address)
	}
	m.journal = &journal{}
	m.cfg.Machine = m.journal
	r, err := Open(m.cfg)
	m.cfg.Stream = nil
	if err != nil {
		t.Fatal(err)
	}
	m.Raft, m.open = r, true
	t.Cleanup(func() { m.shut(t) })
}

func (m *member) shut(t testing.TB) {
	t.Helper()
	if !m.open {
		return
	}
	m.open = false
	if err := m.Close(); err != nil && m.failure.Load() == nil {
		t.Errorf("close %s: %v", m.cfg.ID, err)
	}
}

func (m *member) server() Server { return Server{ID: m.cfg.ID, Address: m.cfg.Address, Voter: true} }

// newGroup starts n voters.
func newGroup(t testing.TB, n int, change ...func(*Config)) []*member {
	t.Helper()
	var group []*member
	var servers []Server
	for i := range n {
		m := newMember(t, fmt.Sprintf("n%d", i))
		for _, c := range change {
			c(&m.cfg)
		}
		group = append(group, m)
		servers = append(servers, m.server())
	}
	for _, m := range group {
		m.start(t)
	}
	if err := group[0].Bootstrap(servers); err != nil {
		t.Fatal(err)
	}
	return group
}

// calm has heartbeats that a busy machine does not miss: for tests in which one leader is to stay until they end its time.
func calm(c *Config) { c.Heartbeat = time.Second }

// eventually polls: what it waits for happens in raft's own time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// leader waits until one of the members leads and has reached its barrier.
func leader(t testing.TB, group ...*member) *member {
	t.Helper()
	var found *member
	eventually(t, "a leader", func() bool {
		for _, m := range group {
			if leads, _ := m.State(); m.open && leads {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				found = m
				return m.Barrier(ctx) == nil
			}
		}
		return false
	})
	return found
}

// others returns the members except m.
func others(group []*member, m *member) (rest []*member) {
	for _, o := range group {
		if o != m {
			rest = append(rest, o)
		}
	}
	return rest
}

// propose retries on whoever leads until the command is in; a command of unknown outcome may be in twice.
func propose(t testing.TB, command string, group ...*member) {
	t.Helper()
	eventually(t, "command "+command, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, _, err := leader(t, group...).Propose(ctx, []byte(command))
		return err == nil
	})
}

func has(m *member, command string) bool {
	for _, c := range m.journal.all() {
		if c == command {
			return true
		}
	}
	return false
}

func everywhere(t testing.TB, command string, group ...*member) {
	t.Helper()
	eventually(t, command+" everywhere", func() bool {
		for _, m := range group {
			if !has(m, command) {
				return false
			}
		}
		return true
	})
}

func mustFail(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

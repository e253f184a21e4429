package consensus

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const crashDir = "HACLUSTER_CONSENSUS_CRASH_DIR"

// crashChild is the process that TestK109 kills: a lone voter that proposes numbers and prints those acknowledged.
func crashChild(t *testing.T, dir string) {
	m := newMember(t, "a")
	m.cfg.Dir, m.cfg.SnapshotThreshold = dir, 20
	m.cfg.Heartbeat, m.cfg.LeaderLease, m.cfg.Commit = 20*time.Millisecond, 20*time.Millisecond, time.Millisecond
	m.start(t)
	if err := m.Bootstrap([]Server{m.server()}); err != nil && !strings.Contains(err.Error(), ErrNotEmpty.Error()) {
		t.Fatal(err)
	}
	leader(t, m)
	fmt.Println("restored", strings.Join(m.journal.all(), " "))
	for i := len(m.journal.all()); ; i++ {
		if _, _, err := m.Propose(context.Background(), []byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
		fmt.Println(i)
	}
}

// faults.md K109, on Raft's own state: killed at any moment (append, snapshot, compaction), a node comes back with all
// that it acknowledged, in order.
func TestK109KilledNodeKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(t, dir)
		return
	}
	dir := t.TempDir()
	acknowledged := -1
	for round := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestK109", "-test.timeout=50s")
		child.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "restored") {
			t.Fatalf("round %d: the node did not come back: %s", round, lines.Text())
		}
		restored := strings.Fields(lines.Text())[1:]
		for i, c := range restored {
			if c != strconv.Itoa(i) {
				t.Fatalf("round %d: command %d is %s", round, i, c)
			}
		}
		if len(restored) <= acknowledged {
			t.Fatalf("round %d: %d was acknowledged, only %d commands are there", round, acknowledged, len(restored))
		}
		// Killed between the acknowledgements of a varying number of commands and whatever comes next.
		for range 5 + 7*round {
			if !lines.Scan() {
				t.Fatalf("round %d: the node ended by itself", round)
			}
			acknowledged, _ = strconv.Atoi(lines.Text())
		}
		_ = child.Process.Kill()
		for lines.Scan() { // acknowledged before the kill, read after it
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				acknowledged = n
			}
		}
		_ = child.Wait()
		cancel()
	}
	if acknowledged < 5*12 {
		t.Errorf("only %d commands were tried", acknowledged)
	}
}

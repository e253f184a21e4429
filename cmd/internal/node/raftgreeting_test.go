package node

import (
	"net"
	"strings"
	"testing"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// faults.md G39: who was founded with another id is another cluster, whatever its name.
func TestG39RaftOfAnotherClusterIsRefused(t *testing.T) {
	one, two := strings.Repeat("ab", 16), strings.Repeat("cd", 16)
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	for _, c := range []struct {
		mine, theirs string
		fine         bool
	}{{one, one, true}, {one, two, false}, {one, "", true}, {"", one, true}} {
		n := &Node{cfg: &config.Config{}, state: newStateStore()}
		n.formation.Store(&cluster.Init{ID: c.mine})
		reason, err := n.judgeRaft(raftGreeting{c.theirs, "alpha-0123456789ab"}, near)
		if (err == nil) != c.fine || (reason == "") != c.fine {
			t.Errorf("ours %q, theirs %q: %q, %v", c.mine, c.theirs, reason, err)
		}
	}
}

func FuzzRaftGreeting(f *testing.F) {
	good, err := raftGreeting{strings.Repeat("ab", 16), "alpha-0123456789ab"}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:50])
	f.Add(make([]byte, raftGreetingLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeRaftGreeting(b)
		if err != nil {
			return
		}
		again, err := g.encode()
		if err != nil {
			t.Fatalf("%+v was taken and cannot be encoded: %v", g, err)
		}
		if h, err := decodeRaftGreeting(again); err != nil || h != g {
			t.Fatalf("%+v became %+v, %v", g, h, err)
		}
	})
}

func TestG39G54RaftGreetingsThatAreNotOurs(t *testing.T) {
	good, err := raftGreeting{"", "alpha-0123456789ab"}.encode()
	if err != nil {
		t.Fatal(err)
	}
	if g, err := decodeRaftGreeting(good); err != nil || g.clusterID != "" || g.raftID != "alpha-0123456789ab" {
		t.Errorf("%+v, %v", g, err)
	}
	for what, change := range map[string]func([]byte){
		"begin":     func(b []byte) { b[0] = 'X' },
		"version 2": func(b []byte) { b[3] = 2 },
		"0 bytes":   func(b []byte) { b[20] = 0 },
		"81 bytes":  func(b []byte) { b[20] = 81 },
	} {
		b := append([]byte(nil), good...)
		change(b)
		if _, err := decodeRaftGreeting(b); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := (raftGreeting{"nonsense", "a-b"}).encode(); err == nil {
		t.Error("a cluster id that is none was encoded")
	}
	if _, err := (raftGreeting{"", strings.Repeat("x", 81)}).encode(); err == nil {
		t.Error("a Raft id that is too long was encoded")
	}
}

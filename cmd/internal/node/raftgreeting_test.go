package node

import (
	"strings"
	"testing"
)

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

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// listener keeps what was said.
type listener struct {
	mu   sync.Mutex
	said []string
}

func (l *listener) notify(state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, state)
}

// after gives what is said within that time, and what comes at its end.
func (l *listener) after(d time.Duration) (said []string) {
	time.Sleep(d)
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	said, l.said = l.said, nil
	return said
}

// While it waits for the others a node keeps its start from timing out, for as long as that takes, and says why it waits.
func TestSystemdIsToldOfTheStartUntilReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l listener
		var why atomic.Value
		why.Store("no leader")
		ready := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		go supervisor{ready: ready, why: func() string { return why.Load().(string) }, notify: l.notify}.run(ctx)
		said := l.after(time.Hour - time.Second) // between two ticks
		if want := int(time.Hour / statusEvery); len(said) != want {
			t.Errorf("told %d times within an hour, want %d", len(said), want)
		}
		for _, state := range said {
			if state != "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=no leader" {
				t.Fatalf("told %q", state)
			}
		}
		for _, step := range []struct {
			what string
			do   func()
			d    time.Duration
			want string
		}{
			{"ready", func() { why.Store(""); close(ready) }, 0, "READY=1|STATUS=ready"},
			{"nothing changes", func() {}, time.Hour, ""},
			{"the leader is lost", func() { why.Store("no leader") }, statusEvery, "STATUS=no leader"},
			{"it stops", stop, 0, "STOPPING=1"},
		} {
			step.do()
			if got := strings.Join(l.after(step.d), "|"); got != step.want {
				t.Errorf("%s: told %q, want %q", step.what, got, step.want)
			}
		}
	})
}

// The watchdog is fed as often as it wants, and not by a daemon that cannot look at itself any more.
func TestSystemdsWatchdogIsFedByWhatLives(t *testing.T) {
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "30000000")
	synctest.Test(t, func(t *testing.T) {
		var l listener
		var hung atomic.Bool
		mends := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		go supervisor{notify: l.notify, alive: func() {
			if hung.Load() {
				<-mends
			}
		}}.feed(ctx)
		if said := l.after(30 * time.Second); strings.Join(said, "|") != "WATCHDOG=1|WATCHDOG=1|WATCHDOG=1|WATCHDOG=1" {
			t.Errorf("told %q within 30 s", said)
		}
		hung.Store(true)
		if said := l.after(time.Hour); len(said) != 0 {
			t.Errorf("fed %d times by a daemon that hangs", len(said))
		}
		stop()
		close(mends)
		synctest.Wait()
	})
}

func TestWithoutSystemdsWatchdogNothingIsFed(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	supervisor{alive: func() { t.Error("looked at itself") }}.feed(t.Context())
}

// What is said arrives where systemd listens.
func TestSystemdsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if sent, err := daemon.SdNotify(false, daemon.SdNotifyReady); !sent || err != nil {
		t.Fatal(sent, err)
	}
	b := make([]byte, 100)
	n, err := ln.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Fatalf("%q, %v", b[:n], err)
	}
}

package hot

import (
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCompanyCountsEachConnectionOnceInAWindow(t *testing.T) {
	var y company
	seen := make([]uint64, 5)
	at := func(windows float64) time.Duration { return time.Duration((1000 + windows) * float64(window)) }
	for _, step := range []struct {
		at   time.Duration
		who  int
		want bool
		why  string
	}{
		{at(0), 0, false, "one"},
		{at(0.1), 1, false, "two"},
		{at(0.2), 0, false, "the first again"},
		{at(0.3), 2, true, "a third"},
		{at(0.4), 0, true, "the first, in company"},
		{at(1.1), 0, true, "in the window after"},
		{at(2.1), 0, false, "alone again"},
		{at(2.2), 1, false, "two again"},
		{at(2.3), 2, true, "three again"},
		{at(9), 3, false, "after long"},
		{at(8), 4, false, "by an older clock"},
		{at(9.1), 0, true, "all of these"},
	} {
		if got := y.joins(step.at, &seen[step.who]); got != step.want {
			t.Errorf("%s: crowded %t", step.why, got)
		}
	}
}

// Many conversations with one message at a time in each do at least what one does: none keeps the processors from the others while it
// waits. It is far more on a quiet machine; waiting in the thread, ten did less than a tenth of what one did.
func TestManyConversationsDoNotWaitForEachOthersSleep(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	one := conversations(t, 1)
	ten := conversations(t, 10)
	t.Logf("one conversation: %d messages, ten: %d", one, ten)
	if ten < one/2 {
		t.Errorf("ten conversations came to %d messages, one to %d", ten, one)
	}
}

// conversations has so many go on for a while, and counts messages.
func conversations(t *testing.T, n int) (messages int64) {
	t.Helper()
	var goes sync.WaitGroup
	var count atomic.Int64
	end := time.Now().Add(500 * time.Millisecond)
	for range n {
		near, far := sockets(t)
		for _, c := range []net.Conn{near, far} {
			goes.Go(func() {
				defer c.Close()
				h := c.(*Conn)
				message := make([]byte, 64)
				if c == near {
					_, _ = c.Write(message)
				}
				for {
					h.Alone(true)
					if _, err := io.ReadFull(c, message); err != nil || time.Now().After(end) {
						return
					}
					count.Add(1)
					if _, err := c.Write(message); err != nil {
						return
					}
				}
			})
		}
	}
	goes.Wait()
	return count.Load()
}

// sockets are two ends of a connection, taken over.
func sockets(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return Take(near), Take(far)
}

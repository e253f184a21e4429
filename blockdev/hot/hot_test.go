package hot

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a connection with one end taken.
func pair(t testing.TB, network string) (taken, other net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if other, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	taken = Take(in)
	h, ok := taken.(*Conn)
	if !ok {
		t.Fatalf("a %s connection was not taken: %T", network, taken)
	}
	h.Alone(true)
	t.Cleanup(func() { taken.Close(); other.Close() })
	return taken, other
}

func each(t *testing.T, f func(t *testing.T, taken, other net.Conn)) {
	for _, kind := range []string{"tcp", "unix", "eager tcp"} {
		t.Run(kind, func(t *testing.T) {
			network, eager := strings.CutPrefix(kind, "eager ")
			taken, other := pair(t, network)
			if eager {
				taken.(*Conn).Eager()
				taken.(*Conn).shorts = enough
			}
			f(t, taken, other)
		})
	}
}

// An eager reader asks while answers come soon, and no more after a pause.
func TestEagerReaderOfAQuietConversationWaits(t *testing.T) {
	taken, other := pair(t, "tcp")
	h := taken.(*Conn)
	h.Eager()
	for range 100 { // on a busy machine what is sent may be there before it is waited for
		h.shorts = enough
		send := time.AfterFunc(4*short, func() { other.Write([]byte{1}) })
		if _, err := io.ReadFull(taken, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if send.Stop(); h.shorts < enough {
			return
		}
	}
	t.Error("it goes on asking after a pause")
}

func TestBytesPassBothWaysHotAndAfterAPause(t *testing.T) {
	each(t, func(t *testing.T, taken, other net.Conn) {
		b := make([]byte, 5)
		for _, pause := range []time.Duration{0, 0, 3 * moment, 0, moment, 10 * moment} {
			read := make(chan error, 1)
			taken.(*Conn).Alone(pause != moment)
			go func() { _, err := io.ReadFull(taken, b); read <- err }()
			time.Sleep(pause) // long pauses have the reader leave its thread
			if _, err := other.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if err := <-read; err != nil || string(b) != "hello" {
				t.Fatalf("%q, %v", b, err)
			}
			if _, err := taken.Write([]byte("there")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(other, b); err != nil || string(b) != "there" {
				t.Fatalf("%q, %v", b, err)
			}
		}
	})
}

func TestMuchIsWrittenToAReaderThatTakesItsTime(t *testing.T) {
	each(t, func(t *testing.T, taken, other net.Conn) {
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
		wrote := make(chan error, 1)
		go func() {
			_, err := taken.Write(data)
			taken.(*Conn).CloseWrite()
			wrote <- err
		}()
		got, err := io.ReadAll(other)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
	})
}

func TestEndOfStream(t *testing.T) {
	each(t, func(t *testing.T, taken, other net.Conn) {
		other.Close()
		if n, err := taken.Read(make([]byte, 1)); err != io.EOF || n != 0 {
			t.Fatalf("%d, %v", n, err)
		}
	})
}

func TestCloseEndsCallsThatWait(t *testing.T) {
	each(t, func(t *testing.T, taken, other net.Conn) {
		ended := make(chan error, 2)
		go func() { _, err := taken.Read(make([]byte, 1)); ended <- err }()
		go func() { _, err := taken.Write(make([]byte, 64<<20)); ended <- err }()
		time.Sleep(3 * moment) // one of the reader's two ways to wait; the other is as likely on a busy machine
		taken.Close()
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a call that waited returned %v", err)
			}
		}
		if _, err := io.Copy(io.Discard, other); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Logf("the other end: %v", err) // a reset or the end: either tells it
		}
		if _, err := taken.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after the close: %v", err)
		}
		if err := taken.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("deadline after the close: %v", err)
		}
	})
}

func TestDeadlinesReachCallsThatWait(t *testing.T) {
	each(t, func(t *testing.T, taken, other net.Conn) {
		for _, wait := range []time.Duration{0, 5 * moment} {
			ended := make(chan error, 2)
			go func() { _, err := taken.Read(make([]byte, 1)); ended <- err }()
			go func() { _, err := taken.Write(make([]byte, 64<<20)); ended <- err }()
			time.Sleep(wait)
			if err := taken.SetDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("a call that waited returned %v", err)
				}
			}
			if err := taken.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		go other.Write([]byte("x"))
		if _, err := taken.Read(make([]byte, 1)); err != nil {
			t.Errorf("after the deadline was removed: %v", err)
		}
	})
}

func TestWhatIsNoSocketStaysAsItIs(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Take(a) != a {
		t.Error("a pipe was taken")
	}
}

func TestReadingAndWritingAllocatesNothing(t *testing.T) {
	taken, other := pair(t, "unix")
	go func() { // echoes
		b := make([]byte, 64)
		for {
			n, err := other.Read(b)
			if err != nil {
				return
			}
			other.Write(b[:n])
		}
	}()
	raw, err := taken.(*Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	write := func(fd uintptr) bool { _, err := writeFD(fd, b); return err == nil }
	allocs := testing.AllocsPerRun(2000, func() {
		if err := raw.Write(write); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(taken, b); err != nil {
			t.Fatal(err)
		}
	})
	if allocs >= 1 {
		t.Errorf("%v allocations for a message and its answer", allocs)
	}
}

// A message of 4 KiB and a short answer, with the runtime's poller and without.
func BenchmarkRoundTrip(b *testing.B) {
	for _, kind := range []string{"poller", "alone", "eager", "company"} {
		b.Run(kind, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			take := func(c net.Conn, err error) net.Conn {
				if err != nil {
					b.Fatal(err)
				}
				if kind == "poller" {
					return c
				}
				h := Take(c)
				h.(*Conn).Alone(kind != "company")
				if kind == "eager" {
					h.(*Conn).Eager()
				}
				return h
			}
			ours := take(net.Dial("tcp", l.Addr().String()))
			theirs := take(l.Accept())
			defer ours.Close()
			defer theirs.Close()
			go func() {
				m := make([]byte, 4096)
				for {
					if _, err := io.ReadFull(theirs, m); err != nil {
						return
					}
					theirs.Write(m[:64])
				}
			}()
			m := make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				ours.Write(m)
				io.ReadFull(ours, m[:64])
			}
		})
	}
}

package identity

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// syncBuffer is a log that tests may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type fixture struct {
	*testing.T
	tr  *Transport
	mux *Mux
	log *syncBuffer
	wg  sync.WaitGroup // what the accepting side runs
}

// start opens a port with one echo server per given protocol.
func start(t *testing.T, cfg Config, serve ...Proto) *fixture {
	t.Helper()
	f := &fixture{T: t, log: &syncBuffer{}}
	cfg.Insecure = cfg.PKI == ""
	cfg.Logger = slog.New(slog.NewTextHandler(f.log, nil))
	var err error
	if f.tr, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if f.mux, err = f.tr.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	for _, p := range serve {
		f.serve(p)
	}
	// The test's own connections are closed before this: clean-ups run last in, first out.
	t.Cleanup(func() {
		f.mux.Close()
		f.wg.Wait()
		f.tr.Close()
		if n := f.mux.established.Load(); n != 0 {
			t.Errorf("%d connections still counted after everything was closed", n)
		}
	})
	return f
}

// serve echoes what comes on a protocol's connections.
func (f *fixture) serve(p Proto) {
	ln := f.mux.Listener(p)
	f.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
}

func (f *fixture) addr() string { return f.mux.Addr().String() }

func (f *fixture) raw() net.Conn {
	f.Helper()
	c, err := net.Dial("tcp", f.addr())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	return c
}

func (f *fixture) dial(p Proto) net.Conn {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := f.tr.Dial(ctx, f.addr(), p)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	return c
}

// works sends a message and expects it back.
func works(c net.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("are you there?")); err != nil {
		return err
	}
	got := make([]byte, 14)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != "are you there?" {
		return errors.New("wrong echo: " + string(got))
	}
	return nil
}

// isClosed waits until the other side ended the connection.
func isClosed(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := c.Read(make([]byte, 1))
	ne, ok := errors.AsType[net.Error](err)
	return n == 0 && err != nil && !(ok && ne.Timeout())
}

func (f *fixture) mustWork(p Proto) {
	f.Helper()
	if err := works(f.dial(p)); err != nil {
		f.Fatalf("%v: %v", p, err)
	}
}

func TestAddressesThatLeaveTheMachineAreRefused(t *testing.T) {
	tr, err := New(Config{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		if _, err := tr.Listen(addr); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("Listen(%q): err = %v", addr, err)
		}
		if _, err := tr.ListenTCP(addr); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("ListenTCP(%q): err = %v", addr, err)
		}
	}
	// 192.0.2.0/24 is reserved for documentation: no packet is sent, the address is refused before.
	if _, err := tr.Dial(t.Context(), "192.0.2.1:7400", ProtoRaft); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("Dial: err = %v", err)
	}
}

func TestProtocolsReachTheirListeners(t *testing.T) {
	f := start(t, Config{})
	got := make(chan string, 2)
	for _, p := range protos {
		ln := f.mux.Listener(p)
		f.wg.Go(func() {
			c, err := ln.Accept()
			if err != nil {
				got <- err.Error()
				return
			}
			defer c.Close()
			b := make([]byte, len(p.String()))
			io.ReadFull(c, b)
			got <- p.String() + " got " + string(b)
		})
	}
	want := map[string]bool{"raft got raft": true, "grpc got grpc": true, "data got data": true, "relay got relay": true}
	for _, p := range protos {
		if _, err := f.dial(p).Write([]byte(p.String())); err != nil {
			t.Fatal(err)
		}
	}
	for range protos {
		if s := <-got; !want[s] {
			t.Errorf("unexpected: %s", s)
		}
	}
}

func TestAcceptingSideMaySpeakFirst(t *testing.T) {
	f := start(t, Config{})
	ln := f.mux.Listener(ProtoGRPC)
	done := make(chan error, 1)
	f.wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		done <- err
	})
	c := f.dial(ProtoGRPC)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("read %q, %v", b, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The like of faults.md N1, on the node's port.
func TestConnectAndVanishFiftyTimes(t *testing.T) {
	f := start(t, Config{}, ProtoRaft)
	for i := range 50 {
		c := f.raw()
		if i%2 == 0 {
			c.Write([]byte("HAC"))
		}
		c.Close()
	}
	f.mustWork(ProtoRaft)
}

// faults.md G41, G54 and garbage of other kinds.
func TestForeignConnectionsAreClosedAndNamedInTheLog(t *testing.T) {
	cases := map[string]struct{ sent, logged string }{
		"http":             {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "plain HTTP spoken"},
		"http2":            {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "plain HTTP/2"},
		"tls":              {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "TLS spoken"},
		"garbage":          {"\x00\xff\n\x1b[31m%n!", `\\x00\\xff\\n\\x1b[31m`},
		"newer version":    {"HACL\x02\x01\x00\x00", "version 2, this node speaks version 1"},
		"unknown protocol": {"HACL\x01\x09\x00\x00", "unknown protocol 9"},
		"reserved bytes":   {"HACL\x01\x01\x00\x07", "reserved bytes set"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := start(t, Config{}, ProtoRaft, ProtoGRPC)
			c := f.raw()
			if _, err := c.Write([]byte(tc.sent)); err != nil {
				t.Fatal(err)
			}
			if !isClosed(c) {
				t.Fatal("connection stays open")
			}
			f.mux.Close()
			log := f.log.String()
			if !strings.Contains(log, tc.logged) {
				t.Errorf("log does not say %q:\n%s", tc.logged, log)
			}
			if strings.ContainsAny(log, "\x00\x1b") {
				t.Errorf("log is not escaped: %q", log)
			}
		})
	}
}

func TestForeignConnectionsAreLoggedOncePerInterval(t *testing.T) {
	f := start(t, Config{LogInterval: time.Hour}, ProtoRaft)
	for range 20 {
		c := f.raw()
		c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		if !isClosed(c) {
			t.Fatal("connection stays open")
		}
	}
	f.mux.Close()
	if n := strings.Count(f.log.String(), "\n"); n != 1 {
		t.Errorf("%d log lines for 20 refused connections, want 1:\n%s", n, f.log)
	}
}

func TestSuppressedLinesAreCounted(t *testing.T) {
	l := newLimitedLog(slog.Default(), time.Minute)
	t0 := time.Now()
	for i, want := range []bool{true, false, false} {
		if _, due := l.due("x", t0.Add(time.Duration(i)*time.Second)); due != want {
			t.Errorf("line %d: due = %v", i, due)
		}
	}
	if n, due := l.due("x", t0.Add(time.Minute)); !due || n != 2 {
		t.Errorf("after the interval: due %v, suppressed %d, want true, 2", due, n)
	}
}

// The like of faults.md N15.
func TestPrefaceByteAtATimeWorks(t *testing.T) {
	f := start(t, Config{}, ProtoGRPC)
	c := f.raw()
	p := newPreface(ProtoGRPC)
	for _, b := range p {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if err := works(c); err != nil {
		t.Fatal(err)
	}
}

func TestSlowPrefaceIsClosedAtTheDeadline(t *testing.T) {
	f := start(t, Config{HandshakeTimeout: 50 * time.Millisecond}, ProtoRaft)
	c := f.raw()
	c.Write([]byte("HACL"))
	if !isClosed(c) {
		t.Fatal("a connection that never finished its preface stays open")
	}
	f.mux.Close()
	if !strings.Contains(f.log.String(), errSlow.Error()) {
		t.Errorf("not logged:\n%s", f.log)
	}
}

func TestHandshakeDeadlineEndsWithTheHandshake(t *testing.T) {
	for limit := 100 * time.Millisecond; ; limit *= 2 {
		f := start(t, Config{HandshakeTimeout: limit}, ProtoRaft)
		idle := f.dial(ProtoRaft)
		if err := works(idle); err != nil {
			if limit > 5*time.Second {
				t.Fatal(err)
			}
			continue // on a busy machine the handshake may be late
		}
		// Silent connections tell when the deadline of the first would have passed, twice over.
		for range 2 {
			if !isClosed(f.raw()) {
				t.Fatal("a silent connection stays open")
			}
		}
		if err := works(idle); err != nil {
			t.Errorf("an idle connection was cut: %v", err)
		}
		return
	}
}

func TestSocketsGiveUpDeadPeersInTime(t *testing.T) {
	f := start(t, Config{UserTimeout: 1234 * time.Millisecond})
	ln := f.mux.Listener(ProtoRaft)
	dialed := f.dial(ProtoRaft)
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for name, c := range map[string]net.Conn{"dialed": dialed, "accepted": accepted} {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); ms != 1234 || err != nil {
				t.Errorf("%s: TCP_USER_TIMEOUT %d ms, %v", name, ms, err)
			}
			if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); v != 1 || err != nil {
				t.Errorf("%s: TCP_NODELAY is %d, %v", name, v, err)
			}
			if v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); v != 1 || err != nil {
				t.Errorf("%s: SO_KEEPALIVE is %d, %v", name, v, err)
			}
		})
	}
}

// The like of faults.md N14, with more.
func TestGoodConnectionGetsThroughFiveHundredHalfOpenOnes(t *testing.T) {
	f := start(t, Config{MaxHandshakes: 32, HandshakeTimeout: time.Hour}, ProtoRaft)
	var half []net.Conn
	for range 500 {
		half = append(half, f.raw())
	}
	f.mustWork(ProtoRaft)
	for i, c := range half[:400] {
		if !isClosed(c) {
			t.Fatalf("half-open connection %d was kept beyond the limit", i)
		}
	}
	f.mux.mu.Lock()
	owing := f.mux.owing.Len()
	f.mux.mu.Unlock()
	if owing > 32 {
		t.Errorf("%d connections owe a preface, limit is 32", owing)
	}
}

func TestUnservedProtocolDoesNotHoldUpTheOthers(t *testing.T) {
	f := start(t, Config{Backlog: 4}, ProtoRaft)
	refused := make(chan bool, 10)
	for range cap(refused) {
		c := f.dial(ProtoGRPC)
		go func() {
			_, err := c.Read(make([]byte, 1))
			refused <- !errors.Is(err, net.ErrClosed) // not by our own clean-up
		}()
	}
	for i := range cap(refused) - 4 {
		if !<-refused {
			t.Fatalf("connection %d beyond the backlog was not refused", i)
		}
	}
	f.mustWork(ProtoRaft)
	if n := f.mux.established.Load(); n < 4 {
		t.Errorf("%d connections wait, the backlog is 4", n)
	}
	// Those within the backlog are served once somebody comes, and then there is room for another.
	f.serve(ProtoGRPC)
	f.eventually(func() bool { return works(f.dial(ProtoGRPC)) == nil })
}

func TestConnectionsBeyondTheLimitAreRefusedUntilOneEnds(t *testing.T) {
	f := start(t, Config{MaxConns: 3}, ProtoRaft)
	var open []net.Conn
	for range 3 {
		c := f.dial(ProtoRaft)
		if err := works(c); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if c := f.dial(ProtoRaft); !isClosed(c) {
		t.Fatal("a connection beyond the limit was served")
	}
	open[0].Close()
	f.eventually(func() bool { return works(f.dial(ProtoRaft)) == nil })
}

func TestClosedListenerRefusesItsProtocolOnlyAndMayReturn(t *testing.T) {
	f := start(t, Config{}, ProtoRaft)
	ln := f.mux.Listener(ProtoGRPC)
	waiting := f.dial(ProtoGRPC)
	f.eventually(func() bool { return f.mux.established.Load() == 1 })
	ln.Close()
	if !isClosed(waiting) {
		t.Error("a connection in the backlog outlived its listener")
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if c := f.dial(ProtoGRPC); !isClosed(c) {
		t.Error("a closed protocol took a connection")
	}
	f.mustWork(ProtoRaft)

	f.serve(ProtoGRPC)
	f.mustWork(ProtoGRPC)
}

func TestCloseEndsEverythingThatWasNotAccepted(t *testing.T) {
	f := start(t, Config{HandshakeTimeout: time.Hour})
	half, queued := f.raw(), f.dial(ProtoRaft)
	f.eventually(func() bool { return f.mux.established.Load() == 1 })
	if err := f.mux.Close(); err != nil {
		t.Fatal(err)
	}
	if !isClosed(half) || !isClosed(queued) {
		t.Error("a connection that nobody accepted is still open")
	}
	if _, err := f.mux.Listener(ProtoRaft).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if err := f.mux.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func (f *fixture) eventually(cond func() bool) {
	f.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatal("did not become true")
		}
	}
}

// Certificates are looked at on the kernel's connections only, so another network must not get in by mistake.
func TestANetworkOfItsOwnIsRefusedWithTLS(t *testing.T) {
	type network struct{ Network }
	if _, err := New(Config{Network: network{}, PKI: t.TempDir()}); !errors.Is(err, errNetworkTLS) {
		t.Errorf("New: %v, want %v", err, errNetworkTLS)
	}
}

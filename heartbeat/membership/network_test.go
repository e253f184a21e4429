package membership

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// loopback gives addresses of 127.0.0.0/8 that no other test uses: the host part is random, so that tests of other
// packages and of other runs stay apart.
func loopback(n int) (addrs []netip.AddrPort) {
	a, b := byte(1+rand.IntN(250)), byte(rand.IntN(256))
	for i := range n {
		addrs = append(addrs, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, a, b, byte(1 + i)}), 7401))
	}
	return addrs
}

// Both networks keep what the interface promises.
func TestNetworks(t *testing.T) {
	for name, network := range map[string]Network{"sockets": Sockets{}, "memory": NewMemory()} {
		t.Run(name, func(t *testing.T) { testNetwork(t, network) })
	}
}

func testNetwork(t *testing.T, network Network) {
	addrs := loopback(3)
	open := func(t *testing.T, i int) Link {
		t.Helper()
		l, err := network.Open(addrs[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	t.Run("packets arrive whole with their sender", func(t *testing.T) {
		a, b := open(t, 0), open(t, 1)
		msg := []byte("hello")
		if err := a.Send(msg, addrs[1]); err != nil {
			t.Fatal(err)
		}
		copy(msg, "spoil") // the caller keeps p
		buf := make([]byte, 100)
		n, from, err := b.Receive(buf)
		if err != nil || string(buf[:n]) != "hello" || from != addrs[0] {
			t.Errorf("received %q from %v, %v", buf[:n], from, err)
		}
	})
	t.Run("long packets are cut off", func(t *testing.T) {
		a, b := open(t, 0), open(t, 1)
		if err := a.Send(make([]byte, 1000), addrs[1]); err != nil {
			t.Fatal(err)
		}
		if n, _, err := b.Receive(make([]byte, 10)); n != 10 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	t.Run("nobody waits for a receiver that does not read", func(t *testing.T) {
		a, b := open(t, 0), open(t, 1)
		for range 5000 {
			a.Send(make([]byte, 1400), addrs[1])
			a.Send(make([]byte, 1400), addrs[2]) // nobody is there
		}
		if n, _, err := b.Receive(make([]byte, 2000)); n != 1400 || err != nil {
			t.Errorf("the first packets are lost too: %d, %v", n, err)
		}
	})
	t.Run("streams", func(t *testing.T) {
		a, b := open(t, 0), open(t, 1)
		done := make(chan error, 1)
		go func() {
			c, err := b.Accept()
			if err == nil {
				_, err = io.Copy(c, io.LimitReader(c, 4))
				c.Close()
			}
			done <- err
		}()
		c, err := a.Dial(t.Context(), addrs[1])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if host, _, _ := net.SplitHostPort(c.LocalAddr().String()); host != addrs[0].Addr().String() {
			t.Errorf("the stream leaves from %s, not from the link's address", host)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte("ping"))
		got := make([]byte, 4)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
			t.Errorf("read %q, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("dialing nobody fails", func(t *testing.T) {
		a := open(t, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, addrs[2]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("an address has one owner", func(t *testing.T) {
		open(t, 0)
		if _, err := network.Open(addrs[0]); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("close ends what waits and frees the address", func(t *testing.T) {
		l := open(t, 0)
		ended := make(chan error, 2)
		go func() { _, _, err := l.Receive(make([]byte, 10)); ended <- err }()
		go func() { _, err := l.Accept(); ended <- err }()
		l.Close()
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("ended with %v", err)
			}
		}
		if err := l.Send([]byte("x"), addrs[1]); err == nil {
			t.Error("a closed link sends")
		}
		open(t, 0)
	})
}

func TestCutPathCarriesNothingOneWay(t *testing.T) {
	n := NewMemory()
	addrs := loopback(2)
	a, _ := n.Open(addrs[0])
	b, _ := n.Open(addrs[1])
	defer a.Close()
	defer b.Close()
	c, err := a.Dial(t.Context(), addrs[1])
	if err != nil {
		t.Fatal(err)
	}
	n.Cut(addrs[0], addrs[1])
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a stream survived the cut")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for _, l := range []struct {
		Link
		to netip.AddrPort
	}{{a, addrs[1]}, {b, addrs[0]}} {
		if _, err := l.Dial(ctx, l.to); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial over a cut path: %v", err)
		}
	}
	a.Send([]byte("lost"), addrs[1])
	b.Send([]byte("back"), addrs[0])
	n.Heal(addrs[0], addrs[1])
	a.Send([]byte("there"), addrs[1])
	for _, want := range []struct {
		Link
		text string
	}{{a, "back"}, {b, "there"}} {
		buf := make([]byte, 10)
		if n, _, err := want.Receive(buf); err != nil || string(buf[:n]) != want.text {
			t.Errorf("received %q, %v, want %q", buf[:n], err, want.text)
		}
	}
}

func TestSocketsSpeakIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("the kernel has no IPv6, or no ::1 on lo: %v", err)
	} else {
		l.Close()
	}
	port := 20000 + rand.IntN(10000)
	addr := func(i int) netip.AddrPort { return netip.MustParseAddrPort(fmt.Sprintf("[::1]:%d", port+i)) }
	a, err := Sockets{}.Open(addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Sockets{}.Open(addr(1))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := a.Send([]byte("six"), addr(1)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, from, err := b.Receive(buf); err != nil || string(buf[:n]) != "six" || from != addr(0) {
		t.Errorf("received %q from %v, %v", buf[:n], from, err)
	}
}

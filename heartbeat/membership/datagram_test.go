package membership

import (
	"net/netip"
	"testing"
)

func TestKernelAddressLeadsThereAndBack(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:7401":         "127.0.0.1:7401",
		"[::ffff:10.1.2.3]:258":  "10.1.2.3:258",
		"[::1]:65535":            "[::1]:65535",
		"[fe80::1%lo]:7401":      "[fe80::1%1]:7401",
		"[fe80::1:2%17]:1":       "[fe80::1:2%17]:1",
		"[2001:db8::abcd]:10809": "[2001:db8::abcd]:10809",
	} {
		a, err := kernelAddrOf(netip.MustParseAddrPort(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := a.addrPort().String(); got != want {
			t.Errorf("%s leads to %s, want %s", text, got, want)
		}
	}
	if _, err := kernelAddrOf(netip.MustParseAddrPort("[fe80::1%nothere]:1")); err == nil {
		t.Error("an interface that is not there is taken")
	}
}

// Both kinds of sockets, with packets of the largest and the smallest size.
func TestDatagramsArriveWithTheirSender(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		a, b := openLink(t, at), openLink(t, at)
		for _, size := range []int{1, maxFrame} {
			sent := make([]byte, size)
			sent[size-1] = 7
			if err := a.Send(sent, addressOf(b)); err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			got := make([]byte, maxFrame)
			n, from, err := b.Receive(got)
			if err != nil || n != size || got[size-1] != 7 || from != addressOf(a) {
				t.Errorf("%s: %d bytes from %s, %v; %d were sent from %s", at, n, from, err, size, addressOf(a))
			}
		}
		waiting := make(chan error, 1)
		go func() { _, _, err := b.Receive(make([]byte, 1)); waiting <- err }()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-waiting; err == nil {
			t.Errorf("%s: a closed link still receives", at)
		}
	}
}

func openLink(t *testing.T, at string) *socketLink {
	t.Helper()
	l, err := Sockets{}.Open(netip.MustParseAddrPort(at))
	if err != nil {
		t.Skipf("no socket at %s on this machine: %v", at, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*socketLink)
}

func addressOf(l *socketLink) netip.AddrPort {
	a := l.udp.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

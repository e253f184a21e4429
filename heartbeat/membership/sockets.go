package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockets is the network of this machine: UDP for packets, TCP for streams, both at the link's address.
type Sockets struct{}

var _ Network = Sockets{}

type socketLink struct {
	udp *net.UDPConn
	raw syscall.RawConn // of udp
	tcp *net.TCPListener
}

// Open is part of Network.
func (Sockets) Open(addr netip.AddrPort) (Link, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		udp.Close()
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		udp.Close()
		return nil, err
	}
	return &socketLink{udp: udp, raw: raw, tcp: tcp}, nil
}

// Send does not wait for room in the socket's buffer, as the net package would: a dead interface with a full queue
// would stop the packets of all other links, which are sent by the same goroutine.
func (l *socketLink) Send(p []byte, to netip.AddrPort) error {
	sa, err := sockaddr(to)
	if err != nil {
		return err
	}
	var sent error
	err = l.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), p, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sa)
		return true
	})
	return errors.Join(err, sent)
}

func sockaddr(to netip.AddrPort) (unix.Sockaddr, error) {
	addr := to.Addr().Unmap()
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: addr.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(to.Port()), Addr: addr.As16()}
	if zone := addr.Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("zone of %s: %w", to, err)
		}
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa, nil
}

func (l *socketLink) Receive(p []byte) (int, netip.AddrPort, error) {
	n, from, err := l.udp.ReadFromUDPAddrPort(p)
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

func (l *socketLink) Accept() (net.Conn, error) { return l.tcp.AcceptTCP() }

// Dial leaves from the link's own address, so that the connection takes this cable and no other.
func (l *socketLink) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	from := l.tcp.Addr().(*net.TCPAddr)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.IP, Zone: from.Zone}}
	return d.DialContext(ctx, "tcp", to.String())
}

func (l *socketLink) Close() error { return errors.Join(l.udp.Close(), l.tcp.Close()) }

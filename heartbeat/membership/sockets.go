package membership

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
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
	if len(p) == 0 {
		return nil
	}
	addr, err := kernelAddrOf(to)
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = l.raw.Write(func(fd uintptr) bool {
		errno = sendTo(fd, p, &addr)
		return true
	})
	if err == nil && errno != 0 {
		err = l.fault("sendto", errno)
	}
	return err
}

func (l *socketLink) Receive(p []byte) (n int, from netip.AddrPort, err error) {
	var errno syscall.Errno
	err = l.raw.Read(func(fd uintptr) bool {
		var sender kernelAddr
		n, sender, errno = receiveFrom(fd, p)
		from = sender.addrPort()
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = l.fault("recvfrom", errno)
	}
	return n, from, err
}

func (l *socketLink) fault(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "udp", Source: l.udp.LocalAddr(), Err: os.NewSyscallError(op, errno)}
}

func (l *socketLink) Accept() (net.Conn, error) { return l.tcp.AcceptTCP() }

// Dial leaves from the link's own address, so that the connection takes this cable and no other.
func (l *socketLink) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	from := l.tcp.Addr().(*net.TCPAddr)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.IP, Zone: from.Zone}}
	return d.DialContext(ctx, "tcp", to.String())
}

func (l *socketLink) Close() error { return errors.Join(l.udp.Close(), l.tcp.Close()) }

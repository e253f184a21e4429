package membership

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Datagrams are sent and received without telling the runtime. Go's own calls count as calls that may block: in an idle
// daemon most of them woke the thread that watches over blocking calls, which then looks around for a while. These
// return at once, whatever the state of the socket.

// kernelAddr is an address as the kernel takes it: an IPv4 one lies in the first bytes.
type kernelAddr struct {
	raw  unix.RawSockaddrInet6
	size uint32
}

func (a *kernelAddr) inet4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
}

// kernelAddrOf fails if the zone of to is none of this machine's.
func kernelAddrOf(to netip.AddrPort) (a kernelAddr, err error) {
	port := func(p *uint16) { binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], to.Port()) }
	addr := to.Addr().Unmap()
	if addr.Is4() {
		a.size = unix.SizeofSockaddrInet4
		a.inet4().Family, a.inet4().Addr = unix.AF_INET, addr.As4()
		port(&a.inet4().Port)
		return a, nil
	}
	a.size = unix.SizeofSockaddrInet6
	a.raw.Family, a.raw.Addr = unix.AF_INET6, addr.As16()
	port(&a.raw.Port)
	a.raw.Scope_id, err = scopeOf(addr.Zone())
	if err != nil {
		return a, fmt.Errorf("zone of %s: %w", to, err)
	}
	return a, nil
}

// scopeOf is the number of an interface that is named by itself or by its number.
func scopeOf(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
}

// addrPort is the way back; a zone is the number of its interface.
func (a *kernelAddr) addrPort() netip.AddrPort {
	port := func(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
	if a.raw.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4(a.inet4().Addr), port(&a.inet4().Port))
	}
	addr := netip.AddrFrom16(a.raw.Addr)
	if a.raw.Scope_id != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(a.raw.Scope_id), 10))
	}
	return netip.AddrPortFrom(addr.Unmap(), port(&a.raw.Port))
}

// sendTo is sendto(2) of p, which is not empty.
func sendTo(fd uintptr, p []byte, to *kernelAddr) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	return errno
}

// receiveFrom is recvfrom(2) into p, which is not empty.
func receiveFrom(fd uintptr, p []byte) (n int, from kernelAddr, errno syscall.Errno) {
	from.size = uint32(unsafe.Sizeof(from.raw))
	for {
		k, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.size)))
		switch errno {
		case 0:
			return int(k), from, 0
		case unix.EINTR:
		default:
			return 0, from, errno
		}
	}
}

package effect

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neighbours asks and tells the machines on a link who has an address, by ARP (RFC 826, 5227) or by neighbour discovery (RFC 4861).
// It uses the network namespace of the thread that opened it.
type neighbours struct {
	fd    int
	index int
	mac   net.HardwareAddr
	ip    netip.Addr
}

// Formats, without the Ethernet header, which the kernel makes.
const (
	arpLen       = 28
	ipv6Len      = 40
	icmpv6       = 58
	hopLimit     = 255 // RFC 4861: anything else may have come through a router
	solicitation = 135
	advertises   = 136
	override     = 0x20
	optTarget    = 2
)

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (n *neighbours) protocol() uint16 {
	if n.ip.Is4() {
		return unix.ETH_P_ARP
	}
	return unix.ETH_P_IPV6
}

func openNeighbours(at *netlink.LinkAttrs, ip netip.Addr) (*neighbours, error) {
	n := &neighbours{index: at.Index, mac: at.HardwareAddr, ip: ip}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("a packet socket on %s: %w: CAP_NET_RAW is wanted", at.Name, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(n.protocol()), Ifindex: n.index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("a packet socket on %s: %w", at.Name, err)
	}
	n.fd = fd
	return n, nil
}

func (n *neighbours) close() { unix.Close(n.fd) }

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (n *neighbours) send(to net.HardwareAddr, b []byte) error {
	sa := &unix.SockaddrLinklayer{Protocol: htons(n.protocol()), Ifindex: n.index, Halen: 6}
	copy(sa.Addr[:], to)
	if err := unix.Sendto(n.fd, b, 0, sa); err != nil {
		return fmt.Errorf("send on interface %d: %w", n.index, err)
	}
	return nil
}

// probe asks whether another machine has the address, and returns its hardware address.
func (n *neighbours) probe(ctx context.Context) (by net.HardwareAddr, err error) {
	for range probes {
		if err := n.ask(); err != nil {
			return nil, err
		}
		for until := time.Now().Add(probePause); ; {
			if by = n.answer(); by != nil {
				return by, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if !time.Now().Before(until) {
				break
			}
			p := []unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}}
			_, _ = unix.Poll(p, int(max(time.Until(until), time.Millisecond)/time.Millisecond))
		}
	}
	return nil, nil
}

func (n *neighbours) ask() error {
	if n.ip.Is4() {
		return n.send(broadcast, n.arp(1, netip.IPv4Unspecified(), nil))
	}
	group := solicited(n.ip)
	return n.send(multicast(group), n.icmp(netip.IPv6Unspecified(), group, solicitation, 0, nil))
}

// answer is the hardware address of one who says that the address is theirs, among the packets that are there.
func (n *neighbours) answer() net.HardwareAddr {
	b := make([]byte, 2048)
	for {
		got, from, err := unix.Recvfrom(n.fd, b, 0)
		if err != nil {
			return nil
		}
		sa, ok := from.(*unix.SockaddrLinklayer)
		if !ok || sa.Pkttype == unix.PACKET_OUTGOING || sa.Halen != 6 {
			continue
		}
		mac := net.HardwareAddr(bytes.Clone(sa.Addr[:6]))
		if !bytes.Equal(mac, n.mac) && n.claims(b[:got]) {
			return mac
		}
	}
}

// claims reports whether the packet says that its sender has the address. It may come from anybody.
func (n *neighbours) claims(b []byte) bool {
	ip := n.ip.AsSlice()
	if n.ip.Is4() {
		return len(b) >= arpLen && bytes.Equal(b[14:18], ip)
	}
	return len(b) >= ipv6Len+24 && b[6] == icmpv6 && b[7] == hopLimit && b[ipv6Len] == advertises && bytes.Equal(b[ipv6Len+8:ipv6Len+24], ip)
}

// announce tells everybody that the address is here: for IPv4 in both forms, for some listen to one only.
func (n *neighbours) announce() error {
	if n.ip.Is4() {
		if err := n.send(broadcast, n.arp(1, n.ip, nil)); err != nil {
			return err
		}
		return n.send(broadcast, n.arp(2, n.ip, n.mac))
	}
	all := netip.MustParseAddr("ff02::1")
	return n.send(multicast(all), n.icmp(n.ip, all, advertises, override, append([]byte{optTarget, 1}, n.mac...)))
}

func (n *neighbours) arp(op uint16, sender netip.Addr, target net.HardwareAddr) []byte {
	b := make([]byte, arpLen)
	binary.BigEndian.PutUint16(b[0:], 1) // Ethernet
	binary.BigEndian.PutUint16(b[2:], unix.ETH_P_IP)
	b[4], b[5] = 6, 4
	binary.BigEndian.PutUint16(b[6:], op)
	copy(b[8:14], n.mac)
	copy(b[14:18], sender.AsSlice())
	copy(b[18:24], target)
	copy(b[24:28], n.ip.AsSlice())
	return b
}

// icmp is an IPv6 packet of neighbour discovery about the address.
func (n *neighbours) icmp(from, to netip.Addr, kind, flags byte, option []byte) []byte {
	b := make([]byte, ipv6Len+24, ipv6Len+32)
	b = append(b, option...)
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ipv6Len))
	b[6], b[7] = icmpv6, hopLimit
	copy(b[8:24], from.AsSlice())
	copy(b[24:40], to.AsSlice())
	m := b[ipv6Len:]
	m[0], m[4] = kind, flags
	copy(m[8:24], n.ip.AsSlice())
	binary.BigEndian.PutUint16(m[2:], checksum(b))
	return b
}

// checksum is that of ICMPv6: over the addresses, the length, the protocol and the message.
func checksum(b []byte) uint16 {
	sum := uint32(len(b)-ipv6Len) + icmpv6
	for i := 8; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// solicited is the group that the owner of an address listens to.
func solicited(ip netip.Addr) netip.Addr {
	b := netip.MustParseAddr("ff02::1:ff00:0").As16()
	a := ip.As16()
	copy(b[13:], a[13:])
	return netip.AddrFrom16(b)
}

func multicast(group netip.Addr) net.HardwareAddr {
	g := group.As16()
	return net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

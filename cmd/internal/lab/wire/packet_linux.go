package wire

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Open joins two interfaces of the network namespace that the caller is in.
func Open(a, b string, cfg Config) (*Wire, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	w := &Wire{cfg: cfg}
	for i, name := range []string{a, b} {
		p, err := openPacket(name)
		if err != nil {
			if i == 1 {
				w.ends[0].Close()
			}
			return nil, fmt.Errorf("interface %s: %w", name, err)
		}
		w.ends[i] = p
	}
	return w, nil
}

// openPacket is a socket that sees every frame that comes in by an interface, and none that goes out.
func openPacket(name string) (*os.File, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	everything := int(htons(unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // 0: nothing before it is bound
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	set := func(level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	set(unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	set(unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	set(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	set(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20)
	if err == nil {
		mreq := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
		err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(everything), Ifindex: ifi.Index})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return f, nil
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

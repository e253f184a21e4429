package effect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// address is a resource of the kind address: it is on the interface while the resource runs. Before it is put there, the network is
// asked whether another machine has it; afterwards all neighbours are told, again and again for a while, for such packets get lost.
type address struct {
	prefix netip.Prefix
	link   string
	log    *slog.Logger

	mu  sync.Mutex
	end context.CancelFunc // of the announcements that are still to come
}

// How often a duplicate is asked for, and how long an answer may take after the last question. RFC 5227 waits for seconds; a failover
// cannot, and a neighbour on the same network answers within a millisecond.
const (
	probes     = 3
	probePause = 30 * time.Millisecond
)

// announceAfter are the pauses before each announcement.
var announceAfter = []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second}

func (a *address) Ended() <-chan error { return nil }

func (a *address) find() (netlink.Link, *netlink.Addr, error) {
	link, err := netlink.LinkByName(a.link)
	if err != nil {
		return nil, nil, fmt.Errorf("interface %s: %w", a.link, err)
	}
	ip, bits := a.prefix.Addr(), a.prefix.Addr().BitLen()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(a.prefix.Bits(), bits)}}
	if ip.Is4() && ip.IsLoopback() {
		addr.Scope, addr.Broadcast = unix.RT_SCOPE_HOST, net.IPv4zero // as for 127.0.0.1: the kernel takes no other
	}
	if ip.Is6() {
		addr.Flags = unix.IFA_F_NODAD // we ask ourselves, and the kernel's way takes a second
	}
	return link, addr, nil
}

// speaks reports whether neighbours on the link resolve addresses.
func speaks(link netlink.Link) bool {
	at := link.Attrs()
	return at.Flags&net.FlagLoopback == 0 && at.RawFlags&unix.IFF_NOARP == 0 && len(at.HardwareAddr) == 6
}

func (a *address) Start(ctx context.Context) error {
	link, addr, err := a.find()
	if err != nil {
		return err
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is down", a.link)
	}
	has, err := a.has(link, addr)
	if err != nil {
		return err
	}
	var n *neighbours
	if speaks(link) {
		if n, err = openNeighbours(link.Attrs(), a.prefix.Addr()); err != nil {
			return err
		}
	}
	if n != nil && !has {
		if by, err := n.probe(ctx); err != nil || by != nil {
			n.close()
			return errors.Join(err, duplicate(a.prefix.Addr(), by))
		}
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		if n != nil {
			n.close()
		}
		return fmt.Errorf("add %s to %s: %w", a.prefix, a.link, err)
	}
	if n != nil {
		a.announce(n)
	}
	return nil
}

func duplicate(ip netip.Addr, by net.HardwareAddr) error {
	if by == nil {
		return nil
	}
	return fmt.Errorf("%s is in use on this network by %s: look after that machine", ip, by)
}

func (a *address) announce(n *neighbours) {
	ctx, cancel := context.WithCancel(context.Background())
	a.quiet()
	a.mu.Lock()
	a.end = cancel
	a.mu.Unlock()
	if err := n.announce(); err != nil { // the first one at once: the address is used from here on
		a.log.Warn("neighbours are not told of an address", "address", a.prefix, "error", err)
	}
	go func() {
		defer n.close()
		for _, pause := range announceAfter[1:] {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if err := n.announce(); err != nil {
				a.log.Warn("neighbours are not told of an address", "address", a.prefix, "error", err)
			}
		}
	}()
}

// quiet ends the announcements.
func (a *address) quiet() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.end != nil {
		a.end()
		a.end = nil
	}
}

func (a *address) has(link netlink.Link, addr *netlink.Addr) (bool, error) {
	all, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return false, fmt.Errorf("list the addresses of %s: %w", a.link, err)
	}
	for _, have := range all {
		if have.IP.Equal(addr.IP) {
			return true, nil
		}
	}
	return false, nil
}

// Stop takes the address away.
func (a *address) Stop(context.Context) error {
	a.quiet()
	link, addr, err := a.find()
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil // and with it its addresses
	}
	if err != nil {
		return err
	}
	if err := netlink.AddrDel(link, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take %s from %s: %w", a.prefix, a.link, err)
	}
	return nil
}

// Kill is Stop: nobody is asked there either.
func (a *address) Kill(ctx context.Context) error { return a.Stop(ctx) }

func (a *address) Monitor(context.Context) error {
	link, addr, err := a.find()
	if err != nil {
		return err
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is down", a.link)
	}
	if has, err := a.has(link, addr); err != nil || !has {
		return errors.Join(err, fmt.Errorf("%s is not on %s any more", a.prefix, a.link))
	}
	return nil
}

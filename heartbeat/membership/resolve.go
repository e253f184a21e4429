package membership

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// resolve asks the system's resolver.
func resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, portName, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portName, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %q: %w", address, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return addrs, nil
}

// lookup gives at least one address or an error.
func (m *Membership) lookup(ctx context.Context, address string) ([]netip.AddrPort, error) {
	if addr, err := netip.ParseAddrPort(address); err == nil {
		return []netip.AddrPort{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.timing.longWait)
	defer cancel()
	addrs, err := m.cfg.Resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", address)
	}
	return addrs, nil
}

// resolveLoop keeps the addresses of links that are configured by name: until they resolve, while they are down, and
// now and then afterwards, for a name may move to another address at any time.
func (m *Membership) resolveLoop(ctx context.Context) {
	var named []*remoteLink
	for _, r := range m.remotes {
		for _, l := range r.links {
			if l.addr.Load() == nil {
				named = append(named, l)
			}
		}
	}
	if len(named) == 0 {
		return
	}
	unresolved := map[*remoteLink]bool{}
	wait := m.timing.shortWait
	for ctx.Err() == nil {
		for _, l := range named {
			err := m.resolveLink(ctx, l)
			if ctx.Err() == nil && (err != nil) != unresolved[l] {
				unresolved[l] = err != nil
				m.logResolved(l, err)
			}
		}
		if !slices.ContainsFunc(named, func(l *remoteLink) bool { return !l.up.Load() }) {
			wait = m.timing.shortWait
			sleep(ctx, m.timing.longWait)
			continue
		}
		sleep(ctx, wait)
		wait = min(2*wait, m.timing.longWait)
	}
}

func (m *Membership) logResolved(l *remoteLink, err error) {
	if err != nil {
		m.cfg.Logger.Warn("link's name does not resolve, trying again", "link", l.address, "err", err)
		return
	}
	m.cfg.Logger.Info("link's name resolves again", "link", l.address, "address", l.addr.Load().String())
}

// resolveLink keeps an address that works. Of several addresses of a link that is down, it takes the next in turn. An
// address that is known stays when the name stops resolving: a broken name server must not break the heartbeat.
func (m *Membership) resolveLink(ctx context.Context, l *remoteLink) error {
	addrs, err := m.lookup(ctx, l.address)
	if err != nil {
		return err
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	at := -1
	if old := l.addr.Load(); old != nil {
		at = slices.Index(addrs, *old)
		if at >= 0 && l.up.Load() {
			return nil
		}
	}
	next := addrs[(at+1)%len(addrs)]
	l.addr.Store(&next)
	return nil
}

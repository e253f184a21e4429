package membership

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"hacluster/heartbeat"
)

// remote is another node. What changes is atomic: memberlist, the ports, Run and the loops all look at it.
type remote struct {
	name   string
	id     nodeID
	links  []*remoteLink
	gossip atomic.Uint32 // heartbeat.State, written by memberlist's events
	eager  atomic.Bool   // it answers although the gossip does not know it: join without delay
	alive  atomic.Bool   // the verdict

	answered atomic.Pointer[time.Time] // its last answer to the gossip that Run has not seen
	told     heartbeat.State           // what Run last told the detector of the gossip; Run's own
}

// remoteLink is the other end of a link.
type remoteLink struct {
	address string
	port    int                            // the local port it is reached from
	addr    atomic.Pointer[netip.AddrPort] // nil until the address is resolved
	up      atomic.Bool
	rtt     atomic.Int64
	probes  atomic.Uint64 // sent, and answered
	echoes  atomic.Uint64
}

func newRemote(n Node, ports int) *remote {
	r := &remote{name: n.Name, id: idOf(n.Name)}
	for i, address := range n.Links {
		l := &remoteLink{address: address, port: i}
		if i >= ports {
			l.port = 0 // a cable that this node does not have: routing may know a way from the first
		}
		if addr, err := netip.ParseAddrPort(address); err == nil {
			l.addr.Store(&addr)
		}
		r.links = append(r.links, l)
	}
	return r
}

func (r *remote) gossipState() heartbeat.State { return heartbeat.State(r.gossip.Load()) }

// note keeps the detector's view for those who look without asking Run.
func (r *remote) note(p heartbeat.Peer) {
	r.alive.Store(p.State == heartbeat.Alive)
	for i, l := range p.Links {
		r.links[i].up.Store(l.State == heartbeat.Up)
		r.links[i].rtt.Store(int64(l.RTT))
	}
}

// byPromise are the links in the order in which to try them: up before down, fast before slow.
func (r *remote) byPromise() []*remoteLink {
	links := slices.Clone(r.links)
	slices.SortStableFunc(links, func(a, b *remoteLink) int {
		if aUp, bUp := a.up.Load(), b.up.Load(); aUp != bUp {
			if aUp {
				return -1
			}
			return 1
		}
		// Below a millisecond links are equal; the configured order decides.
		return int(time.Duration(a.rtt.Load()).Milliseconds() - time.Duration(b.rtt.Load()).Milliseconds())
	})
	return links
}

// virtualAddress stands for a node in the gossip. The transport goes by names; were the real addresses gossiped, a
// node whose name resolves to a new one would be refused as an impostor until its old one is forgotten.
func virtualAddress(id nodeID) netip.Addr {
	a := [16]byte{0: 0xfd}
	copy(a[8:], id[:])
	return netip.AddrFrom16(a)
}

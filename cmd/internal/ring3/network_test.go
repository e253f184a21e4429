package ring3

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// How long TCP bears silence: as package identity sets it.
const (
	userTimeout = rto              // sent data without an acknowledgement (TCP_USER_TIMEOUT)
	keepAlive   = 10 * time.Second // idle, then probes without an answer
	dialLimit   = 30 * time.Second // the kernel repeats a SYN for so long at most
)

// path is one direction between two machines, by name.
type path struct{ from, to string }

// network connects machines by TCP, and processes of one machine by unix sockets.
type network struct {
	wires // mutex and what it guards
	rnd   *rand.Rand
}

type wires struct {
	mu        sync.Mutex // a leaf: nothing is locked under it
	listeners map[string]*listener
	cut       map[path]int           // which cut it is, so that a time-out knows whether it was healed meanwhile
	cuts      int                    // so far
	delay     map[path]time.Duration // beyond the ordinary
	off       map[string]bool        // machines without power
	changed   chan struct{}          // closed and replaced with each cut and heal
	open      map[*duplex]struct{}
}

func newNetwork(seed uint64) *network {
	return &network{rnd: rand.New(rand.NewPCG(seed, 3)), wires: wires{listeners: map[string]*listener{}, cut: map[path]int{}, delay: map[path]time.Duration{},
		off: map[string]bool{}, changed: make(chan struct{}), open: map[*duplex]struct{}{}}}
}

// set changes the wires and lets everybody who waits look again.
func (n *network) set(change func()) {
	n.mu.Lock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
	all := slices.Collect(maps.Keys(n.open))
	n.mu.Unlock()
	for _, d := range all {
		d.mu.Lock()
		d.changeLocked()
		for _, e := range d.ends {
			e.watchLocked(keepAlive, &e.idle)
			if e.unacked {
				e.watchLocked(userTimeout, &e.armed)
			}
		}
		d.mu.Unlock()
	}
}

func (n *network) cutPath(p path)  { n.set(func() { n.cuts++; n.cut[p] = n.cuts }) }
func (n *network) healPath(p path) { n.set(func() { delete(n.cut, p) }) }

// slow adds a delay to a direction; 0: none.
func (n *network) slow(p path, d time.Duration) { n.set(func() { n.delay[p] = d }) }

// stuck tells which cut keeps bytes from going or their acknowledgement from coming back; 0: none.
func (n *network) stuck(p path) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return max(n.cut[p], n.cut[path{p.to, p.from}])
}

func (n *network) isCut(p path) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[p] != 0
}

func (n *network) hasPower(machine string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.off[machine]
}

// travels is how long a packet takes.
func (n *network) travels(p path) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return 100*time.Microsecond + time.Duration(n.rnd.IntN(100))*time.Microsecond + n.delay[p]
}

// host is one process's access to the network. It implements identity.Network.
type host struct {
	net     *network
	machine string
	dead    bool // guarded by net.mu
}

func (n *network) host(machine string) *host { return &host{net: n, machine: machine} }

func address(network, addr string) (net.Addr, error) {
	if network == "unix" {
		return &net.UnixAddr{Net: "unix", Name: addr}, nil
	}
	return net.ResolveTCPAddr("tcp", addr) // of numbers only: nobody is asked
}

func (h *host) Listen(network, addr string) (net.Listener, error) {
	at, err := address(network, addr)
	if err != nil {
		return nil, err
	}
	l := &listener{host: h, key: network + " " + addr, addr: at, queue: make(chan *end, 128), done: make(chan struct{})}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.dead {
		return nil, syscall.ENETDOWN
	}
	if h.net.listeners[l.key] != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, syscall.EADDRINUSE)
	}
	h.net.listeners[l.key] = l
	return l, nil
}

// Dial waits while the path is cut or the machine there has no power, and is refused when only the process is gone.
func (h *host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	to, err := address(network, addr)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: to, Err: err}
	}
	for {
		_, wait, changed := h.reach(network, addr)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
			l, _, _ := h.reach(network, addr) // there and back: arrived
			if l == nil {
				return fail(syscall.ECONNREFUSED)
			}
			c, err := l.take(h)
			if err != nil {
				return fail(err)
			}
			return c, nil
		case <-changed:
		case <-ctx.Done():
			t.Stop()
			return fail(ctx.Err())
		}
		t.Stop()
	}
}

// reach finds who listens, and how long a first packet takes there and back: longer than anybody waits while nothing gets through.
func (h *host) reach(network, addr string) (l *listener, wait time.Duration, changed <-chan struct{}) {
	n := h.net
	n.mu.Lock()
	l, changed = n.listeners[network+" "+addr], n.changed
	owner := machineAt(addr)
	there, back := path{h.machine, owner}, path{owner, h.machine}
	blocked := n.cut[there] != 0 || n.cut[back] != 0 || n.off[owner]
	n.mu.Unlock()
	switch {
	case network == "unix":
		return l, 50 * time.Microsecond, changed
	case blocked:
		return nil, 2 * dialLimit, changed
	}
	return l, n.travels(there) + n.travels(back), changed
}

// kill takes a process off the network. power: its machine says nothing any more, else its kernel resets what was open.
func (h *host) kill(power bool) {
	n := h.net
	var mine []*duplex
	n.set(func() {
		h.dead = true
		if power {
			n.off[h.machine] = true
		}
		for d := range n.open {
			if d.ends[0].host == h || d.ends[1].host == h {
				mine = append(mine, d)
			}
		}
	})
	n.mu.Lock()
	var ls []*listener
	for _, l := range n.listeners {
		if l.host == h {
			ls = append(ls, l)
		}
	}
	n.mu.Unlock()
	for _, l := range ls {
		l.Close()
	}
	for _, d := range mine {
		for _, e := range d.ends {
			if e.host == h {
				e.crash(power)
			}
		}
	}
}

// boot gives a machine its power back.
func (n *network) boot(machine string) { n.set(func() { delete(n.off, machine) }) }

type listener struct {
	host  *host
	key   string
	addr  net.Addr
	queue chan *end // from Dial to Accept; full: refused
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.host.net.mu.Lock()
		delete(l.host.net.listeners, l.key)
		l.host.net.mu.Unlock()
		close(l.done)
	})
	for {
		select {
		case c := <-l.queue:
			c.Close()
		default:
			return nil
		}
	}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) take(from *host) (net.Conn, error) {
	n := l.host.net
	d := &duplex{net: n, changed: make(chan struct{}), unix: l.addr.Network() == "unix"}
	var source net.Addr = &net.UnixAddr{Net: "unix"}
	if !d.unix {
		source = &net.TCPAddr{IP: net.ParseIP(addressOf(from.machine)), Port: 40000}
	}
	d.ends[0] = &end{d: d, host: from, local: source, remote: l.addr}
	d.ends[1] = &end{d: d, host: l.host, local: l.addr, remote: source}
	d.ends[0].peer, d.ends[1].peer = d.ends[1], d.ends[0]
	n.mu.Lock()
	defer n.mu.Unlock()
	if from.dead || l.host.dead {
		return nil, syscall.ECONNREFUSED
	}
	select {
	case <-l.done:
		return nil, syscall.ECONNREFUSED
	default:
	}
	select {
	case l.queue <- d.ends[1]:
	default:
		return nil, syscall.ECONNREFUSED
	}
	n.open[d] = struct{}{}
	return d.ends[0], nil
}

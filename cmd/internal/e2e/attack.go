package e2e

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Attack is what a stranger does to every port of a cluster: connections that say nothing, stop half way, speak
// something else, or send garbage. Held are kept open until as many newer ones were made.
type Attack struct {
	TCP, UDP []string      // the ports
	Total    int           // connections; one in ten is a burst of datagrams instead, when there are UDP ports
	Workers  int           // default 16
	Held     int           // default 500
	Over     time.Duration // spreads the connections evenly over this time; default: as fast as they can be made
	Seed     uint64

	made, refused atomic.Int64
}

// Result is what came of an Attack.
type Result struct {
	Made    int64 // connections and bursts
	Refused int64 // connections that were not even accepted
}

// Run attacks until all connections were made or ctx ends, and closes what it holds.
func (a *Attack) Run(ctx context.Context) Result {
	if a.Workers == 0 {
		a.Workers = 16
	}
	if a.Held == 0 {
		a.Held = 500
	}
	var next atomic.Int64
	began := time.Now()
	var workers sync.WaitGroup
	for w := range a.Workers {
		workers.Go(func() {
			rnd := rand.New(rand.NewPCG(a.Seed, uint64(w)))
			held := make([]net.Conn, max(a.Held/a.Workers, 1))
			defer func() {
				for _, c := range held {
					drop(c)
				}
			}()
			for i := next.Add(1) - 1; i < int64(a.Total) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if !a.turn(ctx, began, i) {
					break
				}
				slot := &held[rnd.IntN(len(held))]
				drop(*slot)
				*slot = a.one(ctx, rnd)
			}
		})
	}
	workers.Wait()
	return Result{a.made.Load(), a.refused.Load()}
}

// turn waits until connection i is due. false: ctx ended.
func (a *Attack) turn(ctx context.Context, began time.Time, i int64) bool {
	if a.Over == 0 {
		return true
	}
	due := time.NewTimer(time.Until(began.Add(time.Duration(float64(a.Over) / float64(a.Total) * float64(i)))))
	defer due.Stop()
	select {
	case <-due.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// drop ends a connection so that no port of this machine waits for its end.
func drop(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
		t.Close()
	}
}

// one makes a connection and says something wrong on it, or sends some datagrams and gives nil.
func (a *Attack) one(ctx context.Context, rnd *rand.Rand) net.Conn {
	if len(a.UDP) > 0 && rnd.IntN(10) == 0 {
		a.burst(rnd)
		return nil
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(ctx, "tcp", a.TCP[rnd.IntN(len(a.TCP))])
	if err != nil {
		a.refused.Add(1)
		return nil
	}
	a.made.Add(1)
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write(phrase(rnd)) // it may be refused at once
	return c
}

func (a *Attack) burst(rnd *rand.Rand) {
	c, err := net.Dial("udp", a.UDP[rnd.IntN(len(a.UDP))])
	if err != nil {
		a.refused.Add(1)
		return
	}
	defer c.Close()
	a.made.Add(1)
	for range 10 {
		c.Write(garbage(rnd, 1+rnd.IntN(2000)))
	}
}

func garbage(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// phrase is the beginning of something that a port may or may not speak.
func phrase(rnd *rand.Rand) []byte {
	switch rnd.IntN(9) {
	case 0:
		return nil
	case 1:
		return garbage(rnd, 1+rnd.IntN(64<<10))
	case 2:
		return []byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	case 3:
		return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	case 4:
		return []byte("HACL\x01\x02\x00\x00PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	case 5: // an NBD client that begins an option of 4 GiB
		return []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff")
	case 6: // STARTTLS and silence
		return []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x05\x00\x00\x00\x00")
	case 7: // a handshake that goes on for ever
		return hello()[:3+rnd.IntN(100)]
	}
	return hello() // the whole of it: the server does its part, and waits
}

// hello is the first flight of a TLS handshake, made once.
var hello = sync.OnceValue(func() []byte {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		tls.Client(far, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "ha-raft", "ha-data"}}).Handshake()
	}()
	b := make([]byte, 4096)
	n, err := near.Read(b)
	if err != nil || n < 200 {
		panic("e2e: no client hello")
	}
	return b[:n]
})

// AttackOn is an Attack on every port of the cluster: the nodes' ports, heartbeat links, NBD and HTTP.
func (c *Cluster) AttackOn(total int) *Attack {
	a := &Attack{Total: total, Seed: uint64(c.port)}
	for _, n := range Nodes {
		a.TCP = append(a.TCP, c.Address(n), c.HTTP(n))
		a.TCP = append(a.TCP, c.Links(n)...)
		a.UDP = append(a.UDP, c.Links(n)...)
		if n != "gamma" {
			a.TCP = append(a.TCP, c.NBD(n))
		}
	}
	return a
}

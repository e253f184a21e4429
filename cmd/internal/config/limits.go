package config

import (
	"fmt"
	"strings"
	"time"
)

// Limits are the bounds of R28 that an operator may want to move. Their names, ranges and effects stand in LimitTable;
// everything else that is bounded is a constant with a name in its package.
type Limits struct {
	NBDConnections     int64
	NBDRequests        int64
	NBDBytes           int64
	NBDConnectionBytes int64
	NBDHandshake       time.Duration
	NBDSlowReader      time.Duration
	NBDStall           time.Duration
	NodeConnections    int64
	NodeHandshakes     int64
	NodeHandshake      time.Duration
	DiskOperations     int64
	Events             int64
	Resyncs            int64
}

// The units of limits.
const (
	UnitCount    = ""
	UnitBytes    = "bytes"
	UnitDuration = "duration"
)

// Limit is one named bound. Values are counts, bytes or nanoseconds, by its unit.
type Limit struct {
	Name              string // its key in the limits block
	Unit              string
	Default, Min, Max int64
	// Online: a change takes effect without a restart, for what is opened from then on.
	Online bool
	// Effect is what happens at it.
	Effect string

	field func(*Limits) *int64
}

var limitTable = []Limit{
	{"nbd_connections", UnitCount, 256, 1, 1 << 16, true, "a further NBD client is closed at once", func(l *Limits) *int64 { return &l.NBDConnections }},
	{"nbd_requests", UnitCount, 128, 1, 4096, true, "no further request is read from that connection until one is answered", func(l *Limits) *int64 { return &l.NBDRequests }},
	{"nbd_bytes", UnitBytes, 512 << 20, 64 << 20, 1 << 40, true, "no further data is read from NBD clients; each may always have one small request", func(l *Limits) *int64 { return &l.NBDBytes }},
	{"nbd_connection_bytes", UnitBytes, 64 << 20, 1 << 20, 1 << 40, true, "no further data is read from that connection; one request is always let through", func(l *Limits) *int64 { return &l.NBDConnectionBytes }},
	{"nbd_handshake", UnitDuration, int64(10 * time.Second), int64(100 * time.Millisecond), int64(10 * time.Minute), true, "a client that has not chosen a volume is closed", nanos(func(l *Limits) *time.Duration { return &l.NBDHandshake })},
	{"nbd_slow_reader", UnitDuration, int64(30 * time.Second), int64(100 * time.Millisecond), int64(time.Hour), true, "a client that takes no byte of its answers is closed", nanos(func(l *Limits) *time.Duration { return &l.NBDSlowReader })},
	{"nbd_stall", UnitDuration, int64(30 * time.Second), int64(100 * time.Millisecond), int64(time.Hour), true, "a client that stops in the middle of a request is closed", nanos(func(l *Limits) *time.Duration { return &l.NBDStall })},
	{"node_connections", UnitCount, 4096, 64, 1 << 16, false, "a further connection to the node's port is closed", func(l *Limits) *int64 { return &l.NodeConnections }},
	{"node_handshakes", UnitCount, 128, 8, 1 << 14, false, "the oldest connection that has not said what it wants is closed", func(l *Limits) *int64 { return &l.NodeHandshakes }},
	{"node_handshake", UnitDuration, int64(5 * time.Second), int64(100 * time.Millisecond), int64(time.Minute), false, "a connection that has not said what it wants is closed", nanos(func(l *Limits) *time.Duration { return &l.NodeHandshake })},
	{"disk_operations", UnitCount, 64, 1, 1024, false, "further operations of that volume's backing wait", func(l *Limits) *int64 { return &l.DiskOperations }},
	{"resyncs", UnitCount, 8, 1, 1024, true, "a further volume's resync waits for its turn, which comes in five seconds at a time", func(l *Limits) *int64 { return &l.Resyncs }},
	{"events", UnitCount, 2000, 100, 100000, false, "the oldest event that this node remembers is forgotten", func(l *Limits) *int64 { return &l.Events }},
}

// nanos shows a duration as the whole number that it is.
func nanos(f func(*Limits) *time.Duration) func(*Limits) *int64 {
	return func(l *Limits) *int64 { return (*int64)(f(l)) }
}

// LimitTable lists the named limits, in the order of the documentation.
func LimitTable() []Limit { return append([]Limit(nil), limitTable...) }

// ForClients reports whether it bounds clients of NBD, of whom each keeps to what was in force when it connected.
func (d Limit) ForClients() bool { return strings.HasPrefix(d.Name, "nbd_") }

// Value is the limit's own in l.
func (d Limit) Value(l Limits) int64 { return *d.field(&l) }

// Text shows a value of the limit as the file has it.
func (d Limit) Text(v int64) string {
	switch d.Unit {
	case UnitBytes:
		return bytesText(v)
	case UnitDuration:
		return time.Duration(v).String()
	}
	return fmt.Sprint(v)
}

// bytesText is the size in the largest unit that shows it whole.
func bytesText(v int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for i < len(units)-1 && v != 0 && v%1024 == 0 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%d%s", v, units[i])
}

// DefaultLimits are those of a file without a limits block.
func DefaultLimits() (l Limits) {
	for _, d := range limitTable {
		*d.field(&l) = d.Default
	}
	return l
}

// limits reads the limits block of the cluster block.
func (r *reader) limits(cluster *body) Limits {
	l := DefaultLimits()
	b := cluster.one(false, "limits")
	if b == nil {
		return l
	}
	defer b.finish()
	for _, d := range limitTable {
		v := b.limit(d)
		if v < d.Min || v > d.Max {
			r.add(b.posOfKey(d.Name), "out of range", fmt.Sprintf("%s to %s is wanted", d.Text(d.Min), d.Text(d.Max)))
			continue
		}
		*d.field(&l) = v
	}
	if l.NBDConnectionBytes > l.NBDBytes {
		r.add(b.posOfKey("nbd_connection_bytes"), "more for one connection than for all", fmt.Sprintf("at most nbd_bytes, %s, is wanted", bytesText(l.NBDBytes)))
	}
	return l
}

func (b *body) limit(d Limit) int64 {
	switch d.Unit {
	case UnitBytes:
		return b.size(d.Name, bytesText(d.Default))
	case UnitDuration:
		return int64(b.duration(d.Name, time.Duration(d.Default).String()))
	}
	n, _ := b.number(d.Name, int(d.Default))
	return int64(n)
}

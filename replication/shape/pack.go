package shape

import "time"

// Compress is what an operator set for a line.
type Compress uint8

// The settings. The zero value is that of a line for which nothing is set.
const (
	Off  Compress = iota
	Auto          // as long as it pays
	On            // whatever it costs
)

func (c Compress) String() string { return [...]string{"off", "auto", "on"}[c] }

// Pack decides, for one stream, whether messages are compressed: while that takes less time, here and at the peer, than it saves on the line. What a
// byte costs is measured: to compress it, and to send it. It is pure. The zero value is ready.
//
// While it is off, one message in a while is compressed to see what it would bring, and what the line costs is seen of each; so a
// line that becomes slow is seen at once. While it is on, a line on which little waits because of it does not count as a fast one:
// the cost of sending is forgotten slowly.
type Pack struct {
	on     bool
	before float64 // bytes that were compressed of late
	after  float64 // what they came to
	effort float64 // ns that took
	line   float64 // ns for a byte sent
	sent   float64 // bytes of late, and what they took
	took   float64
	skip   int // bytes until the next look
	next   int // and until the one after it, if that finds it of no use
}

const (
	// lately is how many bytes count.
	lately = 8 << 20
	// forget is how many bytes of messages have a slow line half forgotten while its messages are compressed.
	forget = 1 << 30
	// firstLook and lastLook are how many bytes are sent as they are between two looks at what compressing would bring.
	firstLook = 1 << 20
	lastLook  = 64 << 20
	// worth is what a message comes to at most, of what it was, to be worth the peer's time too.
	worth = 0.9
	// bothEnds: the peer takes about as long to undo it.
	bothEnds = 2
	// surely: it begins only when it saves so many times what it takes.
	surely = 1.2
	// fastest is what a byte takes at least, in ns, on a line that is worth it: 1 GB/s is about what one processor compresses.
	fastest = 1
)

// Compresses reports whether messages are compressed at the moment.
func (p *Pack) Compresses() bool { return p.on }

// Next reports whether the next message, of n bytes, is to be compressed.
func (p *Pack) Next(n int) bool {
	if p.on {
		return true
	}
	if p.skip -= n; p.skip > 0 {
		return false
	}
	p.next = min(max(2*p.next, firstLook), lastLook)
	p.skip = p.next
	return true
}

// Packed tells what a message came to, and how long that took.
func (p *Pack) Packed(before, after int, took time.Duration) {
	p.before, p.after, p.effort = p.before+float64(before), p.after+float64(min(after, before)), p.effort+float64(took)
	if p.before > lately {
		p.before, p.after, p.effort = p.before/2, p.after/2, p.effort/2
	}
	p.decide()
}

// Sent tells how long a message of n bytes took to be sent. leastRate is what the line is limited to, in bytes a second; 0: to
// nothing.
func (p *Pack) Sent(n int, took time.Duration, leastRate int64) {
	p.sent, p.took = p.sent+float64(n), p.took+float64(took)
	if p.sent > lately {
		p.sent, p.took = p.sent/2, p.took/2
	}
	seen := p.took / p.sent
	if leastRate > 0 {
		seen = max(seen, float64(time.Second)/float64(leastRate))
	}
	kept := p.line
	if p.on {
		kept *= 1 - min(float64(n)/forget, 1)/2
	} else {
		kept = 0
	}
	p.line = max(seen, kept)
	p.decide()
}

// decide compares what compressing a byte takes with what that saves on the line.
func (p *Pack) decide() {
	if p.before == 0 {
		return
	}
	ratio, effort := p.after/p.before, p.effort/p.before
	takes := bothEnds * effort
	if !p.on {
		takes *= surely
	}
	p.on = p.line > fastest && ratio < worth && (1-ratio)*p.line > takes
	if p.on {
		p.next, p.skip = 0, firstLook
	}
}

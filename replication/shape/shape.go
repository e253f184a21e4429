// Package shape decides how fast a primary may send on its line to another node, and what of that a resync may take. It is
// pure: a Line is told the time and what is to be sent, and answers how long to wait. Package link asks it, under a mutex, for
// all streams to that node together.
//
//	stream of a volume --Send(bytes)--> bucket of the line            waits in the order of asking
//	resync of a volume --Copied(bytes)--> bucket of resyncs, smaller  asked before a chunk is taken: Rest
//
// A bucket may be overdrawn by one piece of each stream: who takes first and waits afterwards is served in the order of asking,
// and no stream starves. Small messages, such as the question whether somebody is alive, are counted and do not wait for what is
// large, however much of that is owed: they wait for each other when very many of them are sent.
//
// A Pack decides whether what is sent is compressed.
package shape

import "time"

// Settings are what an operator set for a line.
type Settings struct {
	Rate     int64    // bytes a second; 0: no limit
	Calendar []Window // the first that holds counts in the place of Rate
	Reserve  int      // hundredths of the rate that resyncs never take
	Compress Compress
}

const (
	// pieceTime is how long one stream occupies the line before another has its turn.
	pieceTime = 10 * time.Millisecond
	minPiece  = 16 << 10
	maxPiece  = 1 << 20
	// burstTime is how much of what was not used is kept.
	burstTime = 50 * time.Millisecond
	// small messages do not wait as long as they owe no more than smallDebt themselves.
	small     = 1 << 10
	smallDebt = 500 * time.Millisecond
)

// Line is what is known of one line. Now is a time since any moment. The zero value has no limit.
type Line struct {
	settings Settings
	rate     int64 // in force
	all      bucket
	smalls   bucket // of all, what small messages took
	resyncs  bucket
}

// Set changes the settings; at is the moment of the week.
func (l *Line) Set(now time.Duration, s Settings, at Minute) {
	l.settings = s
	l.Look(now, at)
}

// Look puts in force what the calendar says.
func (l *Line) Look(now time.Duration, at Minute) {
	l.rate = l.settings.RateAt(at)
	l.all.set(now, l.rate)
	l.smalls.set(now, l.rate)
	l.resyncs.set(now, l.rate*int64(100-l.settings.Reserve)/100)
}

// Rate is the one in force, in bytes a second; 0: no limit.
func (l *Line) Rate() int64 { return l.rate }

// Piece is how much may be sent at a time, in bytes.
func (l *Line) Piece() int {
	if l.rate == 0 {
		return maxPiece
	}
	return int(min(max(l.rate*int64(pieceTime)/int64(time.Second), minPiece), maxPiece))
}

// Free reports whether something can be sent without waiting.
func (l *Line) Free(now time.Duration) bool { return l.Owed(now) == 0 }

// Send takes n bytes of the line, and says how long their sender waits before it sends them.
func (l *Line) Send(now time.Duration, n int) time.Duration {
	wait := l.Owed(now)
	l.all.take(n)
	if n > small {
		return wait
	}
	owed := l.smalls.wait(now)
	l.smalls.take(n)
	if owed <= smallDebt {
		return 0
	}
	return min(wait, owed)
}

// Owed is how long it takes until nothing is owed.
func (l *Line) Owed(now time.Duration) time.Duration { return l.all.wait(now) }

// Unsent gives back n bytes that were taken and are not sent: their stream is gone.
func (l *Line) Unsent(n int) { l.all.take(-n) }

// Rest is how long no resync may begin to copy anything.
func (l *Line) Rest(now time.Duration) time.Duration { return l.resyncs.wait(now) }

// Copied takes n bytes of what resyncs may use; less than 0: so many are not copied after all.
func (l *Line) Copied(n int64) { l.resyncs.take(int(n)) }

// bucket fills with rate bytes a second. What it has is below zero when more was taken than there was.
type bucket struct {
	rate int64 // 0: no limit
	have float64
	at   time.Duration // when it was filled
}

func (b *bucket) set(now time.Duration, rate int64) {
	b.fill(now)
	switch {
	case b.rate == 0 || rate == 0:
		b.have = 0 // what was sent without a limit does not count against one that is set later
	case rate < b.rate: // who waits does not wait longer for that: a step down must not have every standby silent for seconds
		b.have *= float64(rate) / float64(b.rate)
	}
	b.rate = rate
	b.at = now
}

func (b *bucket) fill(now time.Duration) {
	passed := now - b.at
	b.at = now
	if b.rate != 0 && passed > 0 {
		b.have = min(b.have+float64(b.rate)*passed.Seconds(), float64(b.rate)*burstTime.Seconds())
	}
}

func (b *bucket) take(n int) {
	if b.rate != 0 {
		b.have -= float64(n)
	}
}

// wait is how long it takes until nothing is owed.
func (b *bucket) wait(now time.Duration) time.Duration {
	b.fill(now)
	if b.rate == 0 || b.have >= 0 {
		return 0
	}
	return time.Duration(-b.have / float64(b.rate) * float64(time.Second))
}

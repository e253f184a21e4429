package shape

import (
	"testing"
	"time"
)

const (
	monday = 1 << iota
	tuesday
	wednesday
	thursday
	friday
	saturday
	sunday
)

func at(day int, hour, minute Minute) Minute { return Minute(day)*Day + 60*hour + minute }

func TestCalendarGoesByTheWeek(t *testing.T) {
	office := Window{Days: monday | tuesday | wednesday | thursday | friday, From: 8 * 60, To: 18 * 60, Rate: 20}
	night := Window{Days: sunday, From: 22 * 60, To: 6 * 60, Rate: 30}
	all := Window{Days: saturday, From: 0, To: Day, Rate: 40}
	s := Settings{Rate: 80, Calendar: []Window{office, night, all, {Days: saturday, From: 60, To: 120, Rate: 50}}}
	for _, c := range []struct {
		at   Minute
		want int64
	}{
		{at(0, 7, 59), 80}, {at(0, 8, 0), 20}, {at(0, 17, 59), 20}, {at(0, 18, 0), 80}, {at(4, 12, 0), 20},
		{at(5, 0, 0), 40}, {at(5, 1, 30), 40}, {at(5, 23, 59), 40}, // the first one counts
		{at(6, 8, 0), 80}, {at(6, 21, 59), 80}, {at(6, 22, 0), 30}, {at(0, 0, 0), 30}, {at(0, 5, 59), 30}, {at(0, 6, 0), 80},
		{at(1, 3, 0), 80},
	} {
		if got := s.RateAt(c.at); got != c.want {
			t.Errorf("day %d minute %d: rate %d, want %d", c.at/Day, c.at%Day, got, c.want)
		}
	}
}

// clock has one stream after the other send in pieces; what it says to wait is waited.
type clock struct {
	line Line
	now  time.Duration
}

// stream sends total bytes and returns how long it took.
func (c *clock) send(total int) time.Duration {
	began := c.now
	for total > 0 {
		n := min(c.line.Piece(), total)
		c.now += c.line.Send(c.now, n)
		total -= n
	}
	return c.now - began
}

func TestSendersHaveTheRateAndNoMore(t *testing.T) {
	const rate = 2_500_000 // 20 Mbit/s
	var c clock
	c.line.Set(0, Settings{Rate: rate}, 0)
	if took := c.send(10 * rate); took < 9900*time.Millisecond || took > 10*time.Second {
		t.Fatalf("ten seconds' worth took %v", took)
	}
	c.now += time.Hour // what is not used in an hour is lost but for a moment's worth
	if took := c.send(10 * rate); took < 9900*time.Millisecond || took > 10*time.Second {
		t.Fatalf("after an hour of rest ten seconds' worth took %v", took)
	}
}

// Two streams that always have something to send get half each: in turns, whoever asked first.
func TestStreamsShareALineInTurns(t *testing.T) {
	const rate = 2_500_000
	var l Line
	l.Set(0, Settings{Rate: rate}, 0)
	var next [2]time.Duration // when each has sent its piece
	var sent [2]int
	for {
		i := 0
		if next[1] < next[0] {
			i = 1
		}
		now := next[i]
		if now > 10*time.Second {
			break
		}
		n := l.Piece()
		if i == 1 {
			n /= 2 // one sends smaller pieces
		}
		next[i] = now + l.Send(now, n)
		sent[i] += n
	}
	if all := sent[0] + sent[1]; all < 9.9*rate || all > 10.1*rate {
		t.Fatalf("%d bytes in ten seconds at %d a second", all, rate)
	}
	if sent[1] < sent[0]/3 {
		t.Fatalf("one stream sent %d bytes, the other %d", sent[0], sent[1])
	}
}

func TestSmallMessagesDoNotWaitBehindLargeOnes(t *testing.T) {
	const rate = 1_000_000
	var l Line
	l.Set(0, Settings{Rate: rate}, 0)
	l.Send(0, 2_000_000) // many streams are busy
	if wait := l.Send(0, 100); wait != 0 {
		t.Fatalf("a message of 100 bytes waits %v", wait)
	}
	if wait := l.Send(0, 16<<10); wait < 1999*time.Millisecond || wait > 2002*time.Millisecond {
		t.Fatalf("a message of 16 KiB waits %v, 2,000,100 bytes are owed", wait)
	}
	for range 5000 {
		l.Send(0, 100)
	}
	if wait := l.Send(0, 100); wait < smallDebt {
		t.Fatalf("half a second is owed, and small messages wait %v", wait)
	}
}

// A resync takes what the reserve leaves of the rate, however little else is sent.
func TestResyncLeavesTheReserve(t *testing.T) {
	const rate = 10_000_000
	var l Line
	l.Set(0, Settings{Rate: rate, Reserve: 20}, 0)
	now, copied := time.Duration(0), int64(0)
	for now < 10*time.Second {
		if rest := l.Rest(now); rest > 0 {
			now += rest
			continue
		}
		l.Copied(1 << 20)
		copied += 1 << 20
	}
	if copied < 79_000_000 || copied > 82_000_000 {
		t.Fatalf("a resync copied %d bytes in ten seconds, 80,000,000 are left to it", copied)
	}
	l.Copied(-1 << 40) // nothing of it was needed: no more than a moment's worth is kept
	if l.Rest(now) != 0 {
		t.Fatal("what was given back is still owed")
	}
	if l.resyncs.have > 8_000_000*burstTime.Seconds() {
		t.Fatalf("%f bytes are kept", l.resyncs.have)
	}
}

func TestRateChangesWhileBytesAreOwed(t *testing.T) {
	var l Line
	l.Set(0, Settings{Rate: 1000, Calendar: []Window{{Days: 127, From: 60, To: 120, Rate: 0}, {Days: 127, From: 180, To: 240, Rate: 2000}}}, 0)
	l.Send(0, 10_000)
	if w := l.Send(0, 10_000); w != 10*time.Second {
		t.Fatalf("waits %v for 10,000 bytes at 1,000 a second", w)
	}
	l.Look(0, 180)
	if w := l.all.wait(0); w != 10*time.Second {
		t.Fatalf("20,000 bytes at 2,000 a second take %v", w)
	}
	l.Look(0, 0)
	if w := l.all.wait(0); w != 10*time.Second {
		t.Fatalf("what took ten seconds takes %v when the rate falls", w)
	}
	l.Unsent(4000)
	if w := l.all.wait(0); w != 6*time.Second {
		t.Fatalf("4,000 bytes are not sent, the rest takes %v", w)
	}
	l.Look(0, 60)
	if l.Rate() != 0 || !l.Free(0) || l.Send(0, 1<<30) != 0 || l.Rest(0) != 0 {
		t.Fatal("without a limit something waits")
	}
	l.Look(time.Second, 0)
	if !l.Free(time.Second) {
		t.Fatal("what was sent without a limit counts against one")
	}
}

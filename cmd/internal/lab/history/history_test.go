package history

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

const ms = time.Millisecond

func w(seq uint64, from, to time.Duration) Op {
	return Op{Who: "w", Kind: Write, Seq: seq, Server: "a", Sent: from * ms, Answered: to * ms}
}

func maybe(seq uint64, from time.Duration) Op {
	return Op{Who: "w", Kind: Write, Seq: seq, Server: "a", Sent: from * ms, Unknown: true}
}

func r(seq uint64, from, to time.Duration) Op {
	return Op{Who: "r", Kind: Read, Seq: seq, Server: "a", Sent: from * ms, Answered: to * ms}
}

func TestHistoriesOfOneBlock(t *testing.T) {
	for name, c := range map[string]struct {
		ops []Op
		bad string // a word of the reason; empty: fine
	}{
		"zeroes before the first write":               {[]Op{r(0, 1, 2), w(1, 3, 4), r(1, 5, 6)}, ""},
		"a read beside a write sees either":           {[]Op{w(1, 1, 2), w(2, 3, 9), r(1, 4, 5), r(2, 6, 7)}, ""},
		"new, then old":                               {[]Op{w(1, 1, 2), w(2, 3, 19), r(2, 4, 5), r(1, 6, 7)}, "stale"},
		"a lost acknowledged write":                   {[]Op{w(1, 1, 2), w(2, 3, 4), r(1, 5, 6)}, "stale"},
		"zeroes after an acknowledged write":          {[]Op{w(1, 1, 2), r(0, 5, 6)}, "stale"},
		"what nobody wrote":                           {[]Op{w(1, 1, 2), r(7, 5, 6)}, "nobody wrote"},
		"what is written only later":                  {[]Op{r(1, 1, 2), w(1, 3, 4)}, "later"},
		"unknown and never seen":                      {[]Op{w(1, 1, 2), maybe(2, 3), r(1, 5, 6), w(3, 7, 8), r(3, 9, 10)}, ""},
		"unknown, takes effect late":                  {[]Op{w(1, 1, 2), maybe(2, 3), r(1, 5, 6), r(2, 7, 8)}, ""},
		"unknown, seen, then un-seen":                 {[]Op{w(1, 1, 2), maybe(2, 3), r(2, 5, 6), r(1, 7, 8)}, "stale"},
		"unknown, after a newer one, is lawful":       {[]Op{w(1, 1, 2), maybe(2, 3), w(3, 4, 5), r(3, 6, 7), r(2, 8, 9)}, ""},
		"unknown, seen, overwritten, seen again":      {[]Op{maybe(2, 3), r(2, 4, 5), w(3, 6, 7), r(2, 8, 9)}, "stale"},
		"unknown, after a newer one, but then undone": {[]Op{w(1, 1, 2), maybe(2, 3), w(3, 4, 5), r(3, 6, 7), r(2, 8, 9), r(3, 10, 11)}, "no order"},
	} {
		t.Run(name, func(t *testing.T) {
			bad, undecided := Registers(c.ops, time.Minute)
			if len(undecided) > 0 {
				t.Fatal("undecided")
			}
			if (c.bad == "") != (len(bad) == 0) || c.bad != "" && !strings.Contains(bad[0].Why, c.bad) {
				t.Fatalf("found %v, want %q", bad, c.bad)
			}
		})
	}
}

// Histories of a real register, with answers that get lost, pass; with one acknowledged write forgotten they do not.
func TestRandomHistoriesOfARegister(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for round := range 200 {
		var ops []Op
		var value uint64
		now := time.Duration(0)
		for i := uint64(1); i < 60; i++ {
			now += 10
			switch {
			case rnd.IntN(3) > 0:
				ops = append(ops, r(value, now, now+1+time.Duration(rnd.IntN(9))))
			case rnd.IntN(3) == 0: // unknown; it took effect or not
				ops = append(ops, maybe(i, now))
				if rnd.IntN(2) == 0 {
					value = i
				}
			default:
				ops = append(ops, w(i, now, now+5))
				value = i
			}
		}
		if bad, undecided := Registers(ops, time.Minute); len(undecided)+len(bad) > 0 {
			t.Fatalf("seed %d round %d: %v, undecided %v", seed, round, bad, undecided)
		}
		ops = append(ops, r(value, now+10, now+11), w(100, now+20, now+25), r(value, now+30, now+31))
		if bad, _ := Registers(ops, time.Minute); len(bad) != 1 {
			t.Fatalf("seed %d round %d: the acknowledged write 100 is lost, and nobody says so", seed, round)
		}
	}
}

// Long histories are judged in parts, cut where the block's value is beyond doubt, and only there.
func TestHistoriesAreCutWhereTheyAreQuiet(t *testing.T) {
	for name, c := range map[string]struct {
		ops   []Op
		parts int
	}{
		"one after the other":                      {[]Op{w(1, 1, 2), r(1, 3, 4), w(2, 5, 6), r(2, 7, 8)}, 4},
		"always something under way":               {[]Op{w(1, 1, 4), r(1, 3, 6), w(2, 5, 8), r(2, 7, 10)}, 1},
		"two writes in an order that is not known": {[]Op{maybe(1, 1), w(2, 2, 3), r(1, 4, 5), r(1, 6, 7), w(3, 8, 9), r(3, 10, 11)}, 2},
	} {
		var h []porcupine.Operation
		effective := ends(c.ops)
		for _, o := range c.ops {
			end := o.Answered
			if o.Unknown {
				end = effective[o.Seq]
			}
			h = append(h, porcupine.Operation{Input: o, Call: int64(o.Sent), Return: int64(end)})
		}
		if parts := quiet(h); len(parts) != c.parts {
			t.Errorf("%s: %d parts, want %d: %v", name, len(parts), c.parts, parts)
		}
	}
}

// Ten thousand writes of one block take no time worth mentioning.
func TestLongHistory(t *testing.T) {
	var ops []Op
	for i := range uint64(10000) {
		at := time.Duration(10 * i)
		ops = append(ops, w(i+1, at+1, at+4), r(i+1, at+3, at+6))
	}
	if bad, undecided := Registers(ops, time.Minute); len(bad)+len(undecided) > 0 {
		t.Fatalf("%v, undecided %v", bad, undecided)
	}
}

func TestLostCountsAcknowledgedWritesOnly(t *testing.T) {
	ops := []Op{w(1, 1, 2), w(2, 3, 4), maybe(3, 5), w(4, 7, 8), r(1, 9, 10)}
	if n := Lost(ops); n != 2 {
		t.Fatalf("%d lost, want 2", n)
	}
	if n := Lost(append(ops, r(4, 11, 12))); n != 0 {
		t.Fatalf("%d lost, want 0", n)
	}
}

// What a disk holds is judged block by block, each by itself: a write of unknown outcome may be on one disk and not on
// another.
func TestWhatADiskLacks(t *testing.T) {
	ops := []Op{w(1, 1, 2), w(2, 3, 4), maybe(3, 5)}
	for name, c := range map[string]struct {
		read []Op
		bad  string
	}{
		"the newest acknowledged write":       {[]Op{r(2, 10, 11)}, ""},
		"one of unknown outcome":              {[]Op{r(3, 10, 11)}, ""},
		"one with it, another without":        {[]Op{r(3, 10, 11), r(2, 12, 13)}, ""},
		"an older one":                        {[]Op{r(1, 10, 11)}, "stale"},
		"nothing at all":                      {[]Op{r(0, 10, 11)}, "stale"},
		"what nobody wrote":                   {[]Op{r(9, 10, 11)}, "nobody wrote"},
		"zeroes of a block that nobody wrote": {[]Op{{Kind: Read, Block: 7, Sent: 10 * ms, Answered: 11 * ms}}, ""},
	} {
		bad := Lacks(ops, c.read)
		if (c.bad == "") != (len(bad) == 0) || c.bad != "" && !strings.Contains(bad[0], c.bad) {
			t.Errorf("%s: %v, want %q", name, bad, c.bad)
		}
	}
}

func by(server string, from, to time.Duration) Op {
	return Op{Who: server, Kind: Write, Server: server, Sent: from * ms, Answered: to * ms}
}

func TestPrimariesOneAtAnyInstant(t *testing.T) {
	ab := []Tenure{{1, "a"}, {2, "b"}}
	aba := append(ab, Tenure{3, "a"})
	for name, c := range map[string]struct {
		ops     []Op
		tenures []Tenure
		fine    bool
	}{
		"one primary":                              {[]Op{by("a", 1, 2), by("a", 3, 4)}, ab, true},
		"handed over":                              {[]Op{by("a", 1, 2), by("b", 3, 4)}, ab, true},
		"a late answer":                            {[]Op{by("a", 1, 9), by("b", 3, 4)}, ab, true},
		"an answer sent after the other began":     {[]Op{by("b", 3, 4), by("a", 5, 9)}, ab, false},
		"interleaved":                              {[]Op{by("a", 1, 2), by("b", 3, 4), by("a", 5, 6)}, ab, false},
		"interleaved, with the epochs to explain":  {[]Op{by("a", 1, 2), by("b", 3, 4), by("a", 5, 6)}, aba, true},
		"and once more":                            {[]Op{by("a", 1, 2), by("b", 3, 4), by("a", 5, 6), by("b", 7, 8)}, aba, false},
		"a stranger":                               {[]Op{by("c", 1, 2)}, aba, false},
		"a late answer two tenures ago":            {[]Op{by("a", 1, 2), by("b", 3, 8), by("a", 4, 5), by("b", 3, 9)}, aba, true},
		"never the primary it might have been yet": {[]Op{by("b", 3, 4), by("a", 5, 6), by("b", 7, 8)}, aba, false},
	} {
		t.Run(name, func(t *testing.T) {
			if bad := Primaries(c.ops, c.tenures); c.fine != (len(bad) == 0) {
				t.Fatalf("%v", bad)
			}
		})
	}
}

func TestGapAndOutage(t *testing.T) {
	ops := []Op{by("a", 1, 2), by("a", 3, 4), by("a", 5, 30), by("b", 20, 25), by("b", 26, 27)}
	if gap, began := LongestGap(ops, 0, 30*ms); gap != 21*ms || began != 4*ms {
		t.Errorf("gap %v from %v", gap, began)
	}
	if d, ok := Outage(ops, 10*ms); !ok || d != 21*ms {
		t.Errorf("outage %v %v", d, ok)
	}
	if _, ok := Outage(ops, 28*ms); ok {
		t.Error("an outage that has not ended")
	}
}

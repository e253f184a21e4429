package history

import (
	"testing"
	"time"
)

// What a failover in async lost is counted in writes, also where one wrote over another, and not what the new primary wrote since.
func TestLeftBehindAreTheWritesThatTheNextServerDoesNotKnow(t *testing.T) {
	write := func(seq uint64, block int64, server string, at int) Op {
		return Op{Who: "w", Kind: Write, Block: block, Seq: seq, Server: server, Sent: time.Duration(at) * ms, Answered: time.Duration(at+1) * ms}
	}
	read := func(seq uint64, block int64, server string, at int) Op {
		return Op{Who: "r", Kind: Read, Block: block, Seq: seq, Server: server, Sent: time.Duration(at) * ms, Answered: time.Duration(at+1) * ms}
	}
	ops := []Op{write(1, 0, "a", 0), write(2, 0, "a", 10), write(3, 0, "a", 20), write(4, 1, "a", 30), write(5, 2, "a", 40),
		read(3, 0, "a", 25), // the old one knew it
		read(1, 0, "b", 100), write(6, 0, "b", 110), read(6, 0, "b", 120),
		read(4, 1, "b", 100),
		write(7, 2, "b", 100), read(7, 2, "b", 120)} // written over before it was looked at: not known
	left := LeftBehind(ops, "a")
	if len(left) != 2 || left[0].Seq != 2 || left[1].Seq != 3 {
		t.Errorf("left behind: %v", left)
	}
	if n := Lost(ops); n != 0 {
		t.Errorf("%d are lost by what was read last", n)
	}
	never := []Op{write(1, 0, "a", 5), write(2, 0, "a", 10), read(0, 0, "b", 100)}
	if left := LeftBehind(never, "a"); len(left) != 2 {
		t.Errorf("of a block that the next one never had: %v", left)
	}
}

// A standby in async holds a prefix of the order of writes: what it has was not sent after an answer to what it lacks.
func TestOvertakenAreWritesThatAreThereWithoutAnEarlierOne(t *testing.T) {
	write := func(seq uint64, block int64, from, to int) Op {
		return Op{Who: "w", Kind: Write, Block: block, Seq: seq, Server: "a", Sent: time.Duration(10+from) * ms, Answered: time.Duration(10+to) * ms}
	}
	disk := func(block int64, seq uint64) Op {
		return Op{Who: "disk", Kind: Read, Block: block, Seq: seq, Server: "b", Sent: 100 * ms, Answered: 101 * ms}
	}
	ops := []Op{write(1, 0, 0, 2), write(2, 1, 1, 4), write(3, 2, 3, 6), write(4, 0, 5, 8), {Who: "w", Kind: Write, Block: 1, Seq: 5, Server: "a", Sent: 19 * ms, Unknown: true}}
	for name, c := range map[string]struct {
		read []Op
		bad  int
	}{
		"all":                              {[]Op{disk(0, 4), disk(1, 2), disk(2, 3)}, 0},
		"all, and what was never answered": {[]Op{disk(0, 4), disk(1, 5), disk(2, 3)}, 0},
		"nothing":                          {[]Op{disk(0, 0), disk(1, 0), disk(2, 0)}, 0},
		"a prefix":                         {[]Op{disk(0, 1), disk(1, 2), disk(2, 0)}, 0},
		"without one beside it":            {[]Op{disk(0, 1), disk(1, 0), disk(2, 3)}, 0},
		"without an earlier one":           {[]Op{disk(0, 0), disk(1, 2), disk(2, 3)}, 1},
		"without the one before the last":  {[]Op{disk(0, 4), disk(1, 0), disk(2, 3)}, 1},
		"never answered, after a lost one": {[]Op{disk(0, 1), disk(1, 5), disk(2, 3)}, 1},
	} {
		if bad := Overtaken(append(ops, c.read...), c.read); len(bad) != c.bad {
			t.Errorf("%s: %q, want %d", name, bad, c.bad)
		}
	}
}

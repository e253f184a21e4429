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

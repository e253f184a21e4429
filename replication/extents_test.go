package replication

import (
	"slices"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
)

// holes are what an export says of a range, by block: true for zeroes.
func (e *Export) holes(t *testing.T, r blockdev.Range) (all []bool) {
	t.Helper()
	next := r.Off
	err := e.Extents(r, func(x blockdev.Range, hole bool) bool {
		if x.Off != next || x.Len <= 0 {
			t.Fatalf("%v follows offset %d", x, next)
		}
		for ; next < x.Off+x.Len; next += blockdev.BlockSize {
			all = append(all, hole)
		}
		return true
	})
	if err != nil || next != r.Off+r.Len {
		t.Fatalf("extents end at %d of %v: %v", next, r, err)
	}
	return all
}

// R29: zeroes that are not yet on every member are not promised: should the primary die now, the next one may hold the old
// content for good.
func TestBlockStatusPromisesNoZeroesThatAMemberLacks(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	ten := a.serving()
	a.settled("b")
	c, e := ten.client(t), ten.Export()
	if err := c.write(0, pattern(4*blockdev.BlockSize, 1)); err != nil {
		t.Fatal(err)
	}
	part := blockdev.Range{Len: 8 * blockdev.BlockSize}
	if got, want := e.holes(t, part), []bool{false, false, false, false, true, true, true, true}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpZero, Stall: true})
	trim := func(block, blocks int64) <-chan error {
		return c.begin(&blockdev.Request{Op: blockdev.OpZero, Unmap: true, Range: blockdev.Range{Off: block * blockdev.BlockSize, Len: blocks * blockdev.BlockSize}})
	}
	first, second := trim(1, 2), trim(6, 1)
	l.await("the standby to be at it", func() bool { return held.Waiting() == 2 })
	l.await("the primary to have it", func() bool { return !slices.Contains(a.content()[blockdev.BlockSize:3*blockdev.BlockSize], 1) })
	if got, want := e.holes(t, part), []bool{false, false, false, false, true, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("while the standby lacks it: %v, want %v", got, want)
	}
	held.Remove()
	if <-first != nil || <-second != nil {
		t.Fatal("the trims failed")
	}
	if got, want := e.holes(t, part), []bool{false, true, true, false, true, true, true, true}; !slices.Equal(got, want) {
		t.Errorf("when all have it: %v, want %v", got, want)
	}
}

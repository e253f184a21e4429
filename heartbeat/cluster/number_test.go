package cluster

import (
	"encoding/json"
	"testing"
)

// A volume that exists since before there were numbers has its places for numbers, and its record, superblocks and maps are as they were.
func TestNumbersOfAVolumeWithoutAreItsPlaces(t *testing.T) {
	v := formed(t).Volumes["v"]
	for i, r := range v.Replicas {
		if n := v.NumberOf(r.Node); n != uint32(i+1) || NumberBit(n) != 1<<i || v.Stamp(r.Node) != 0 {
			t.Errorf("replica %d on %s has number %d, bit %b, stamp %d", i, r.Node, n, NumberBit(n), v.Stamp(r.Node))
		}
	}
	if n := v.NumberOf("nobody"); n != 0 {
		t.Errorf("a node without a replica has number %d", n)
	}
	b, err := json.Marshal(v.Replicas)
	if want := `[{"node":"p","device":"/dev/p"},{"node":"s","device":"/dev/s"},{"node":"x","device":"/dev/x"}]`; err != nil || string(b) != want {
		t.Errorf("the record has %s, %v; want %s", b, err, want)
	}
}

// With the first of the list gone, the others keep their numbers; one that was added bears its own.
func TestNumbersStayWhenTheListChanges(t *testing.T) {
	v := Volume{Replicas: []Replica{{Node: "b", Number: 2}, {Node: "c", Number: 33, Added: true}}}
	if b, c := v.NumberOf("b"), v.NumberOf("c"); b != 2 || c != 33 {
		t.Errorf("numbers %d and %d", b, c)
	}
	if b, c := v.Stamp("b"), v.Stamp("c"); b != 0 || c != 33 {
		t.Errorf("stamps %d and %d", b, c)
	}
	if NumberBit(33) != 1 || NumberBit(2) != 2 {
		t.Errorf("bits %b and %b", NumberBit(33), NumberBit(2))
	}
}

package replication

import (
	"testing"

	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
	"hacluster/heartbeat/cluster"
)

// Clearings name replicas by numbers that stay when the list of the record changes, and a slot is only that of the very replica.
func TestRosterGoesByNumbersAndNotByPlaces(t *testing.T) {
	const size = 1 << 20
	dev := memdev.New(memdev.Config{Size: marks.Size(size)})
	b := marks.Binding{Cluster: meta.ID{15: 1}, Volume: meta.ID{15: 7}, Node: "b", Size: size}
	if err := marks.Create(dev, marks.New{Binding: b, Peers: []marks.Peer{{Name: "c"}, {Name: "a"}, {Name: "d", Replica: 7}}}); err != nil {
		t.Fatal(err)
	}
	f, err := marks.Open(dev, b)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	old := newRoster(&cluster.Volume{Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}, {Node: "c"}}}, "b", f)
	if got := old.bits("a", "b", "c"); got != 0b111 || old.bits("c") != 0b100 {
		t.Errorf("a list without numbers: %b, and c is %b", got, old.bits("c"))
	}
	if old.slots["c"] != 0 || old.slots["a"] != 1 || old.all != 0b11 {
		t.Errorf("slots %v, all %b", old.slots, old.all)
	}
	now := newRoster(&cluster.Volume{Replicas: []cluster.Replica{{Node: "b", Number: 2}, {Node: "c", Number: 3}, {Node: "d", Number: 9, Added: true}}}, "b", f)
	if now.bits("c") != 0b100 || now.bits("b") != 0b10 || now.bits("a") != 0 {
		t.Errorf("with a gone: b is %b, c %b, a %b", now.bits("b"), now.bits("c"), now.bits("a"))
	}
	if _, ok := now.slots["d"]; ok || now.all != marks.Of(0) {
		t.Errorf("the slot of number 7 on d counts for number 9: %v, all %b", now.slots, now.all)
	}
}

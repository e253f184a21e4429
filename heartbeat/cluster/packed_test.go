package cluster

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// promotions are those of so many volumes whose primary died, as a leader decides them together.
func promotions(n int) Command {
	inc := func(i int) Incarnation {
		return Incarnation{Boot: "f2a1c0de5b7a4d0e9a3388f1c2d3e4f5", Attachment: fmt.Sprintf("file:fd01:%d", 3700000+7*i)}
	}
	var items []Command
	for i := range n {
		items = append(items, Command{By: "gamma", AtMillis: 1700000000000 + int64(i), Promote: &Promote{On: On{fmt.Sprint("v", i), 1, 4}, Term: 3, Candidate: "beta",
			Member: Member{inc(i), 12}, Basis: BasisUnchanged, Reason: "lease expired", SilentMillis: 631,
			Stay: map[string]Member{"gamma": {inc(2 * i), 3}}}})
	}
	return Together(items)
}

// A node that dies takes a thousand volumes along: they are promoted by one entry, which a slow line carries in time
// (consensus.GoodCommand).
func TestThousandPromotionsAreOneSmallEntry(t *testing.T) {
	c := promotions(1000)
	b := c.Encode()
	got, err := DecodeCommand(b)
	c.Format = commandBatch
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Fatalf("%v: %d items", err, len(got.Batch))
	}
	t.Logf("%d bytes", len(b))
	if len(b) > 64<<10 {
		t.Errorf("it has %d bytes", len(b))
	}
	if b := promotions(3).Encode(); !bytes.Contains(b, []byte(`"format":5,`)) {
		t.Errorf("a small batch is %.60s", b)
	}
	big := Command{By: "p", Configure: &Configure{Config: bytes.Repeat([]byte("x"), 2*packFrom)}}
	if b := big.Encode(); !bytes.Contains(b, []byte(`"format":1,`)) {
		t.Errorf("what is no batch is %.60s", b)
	}
}

// What a log holds is read for ever, whatever compresses it today.
func TestPackedCommandOfALogIsRead(t *testing.T) {
	path := filepath.Join("testdata", "packed.json")
	if os.Getenv("UPDATE_PACKED") != "" {
		if err := os.WriteFile(path, promotions(40).Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := promotions(40)
	want.Format = commandBatch
	if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestPackedCommandThatCannotBeReadIsRefused(t *testing.T) { // R28
	pack := func(b []byte) []byte {
		var into bytes.Buffer
		w, _ := flate.NewWriter(&into, flate.BestSpeed)
		_, _ = w.Write(b)
		_ = w.Close()
		out, _ := json.Marshal(Command{Format: commandPacked, Packed: into.Bytes()})
		return out
	}
	for name, b := range map[string][]byte{
		"empty":         []byte(`{"format":7}`),
		"no deflate":    []byte(`{"format":7,"packed":"AAEC"}`),
		"cut off":       []byte(`{"format":7,"packed":"` + strings.Repeat("A", 8) + `"}`),
		"too long":      pack(bytes.Repeat([]byte(" "), maxUnpacked+1)),
		"packed twice":  pack(promotions(40).Encode()),
		"newer format":  pack([]byte(`{"format":99}`)),
		"no command":    pack([]byte(`x`)),
		"older, packed": pack([]byte(`{"format":0}`)),
	} {
		if _, err := DecodeCommand(b); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

func BenchmarkEncodeThousandPromotions(b *testing.B) {
	c := promotions(1000)
	for b.Loop() {
		c.Encode()
	}
}

func BenchmarkDecodeThousandPromotions(b *testing.B) {
	e := promotions(1000).Encode()
	for b.Loop() {
		if _, err := DecodeCommand(e); err != nil {
			b.Fatal(err)
		}
	}
}

// A node that does not say that it unpacks is sent nothing packed: it would go on without the entry (R7).
func TestPackedOnlyWhereEveryNodeUnpacks(t *testing.T) {
	s := NewState()
	s.Apply(1, 1, Command{Init: &Init{ID: "c", Nodes: []Node{{Name: "a", DataDir: "d"}, {Name: "b", DataDir: "e"}}}})
	start := func(node, dir string, number uint64, reads int) {
		t.Helper()
		if r := s.Apply(s.Index+1, 1, Command{StartNode: &StartNode{Node: node, DataDir: dir, Start: number, Reads: reads}}); r.Void != "" {
			t.Fatal(r.Void)
		}
	}
	many := promotions(40)
	start("a", "d", 1, Reads)
	if s.Readable(many.Encode()) || !s.Readable(many.Plain()) {
		t.Error("b has not said anything yet")
	}
	start("b", "e", 1, commandMixed)
	if s.Readable(many.Encode()) {
		t.Error("b is of an older version")
	}
	start("b", "e", 2, Reads)
	if !s.Readable(many.Encode()) || !s.Readable(Command{SetMaintenance: &SetMaintenance{On: true}}.Encode()) {
		t.Error("all unpack")
	}
	start("b", "e", 3, 0)
	if s.Readable(many.Encode()) || s.Readable(Command{SetMaintenance: &SetMaintenance{On: true}}.Encode()) {
		t.Error("b went back to an older version")
	}
}

func TestCommandOfTooManyPartsIsRefused(t *testing.T) { // R28
	b := []byte(`{"format":5,"batch":[{}` + strings.Repeat(",{}", maxObjects) + `]}`)
	if _, err := DecodeCommand(b); err == nil || !strings.Contains(err.Error(), "parts") {
		t.Errorf("%v", err)
	}
	full := promotions(MaxBatch)
	if _, err := DecodeCommand(full.Encode()); err != nil {
		t.Error(err)
	}
}

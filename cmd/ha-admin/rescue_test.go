package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
)

// What comes later replaces what came before, zeroes too; the file has its name only when it is whole.
func TestExportWritesPartsInOrder(t *testing.T) {
	node := &apitest.Node{Parts: []api.RescuePart{{Size: 4 << 20}, {Off: 4096, Len: 8192, Data: bytes.Repeat([]byte{1}, 8192)},
		{Off: 8192, Len: 4096}, {Off: 3 << 20, Len: 1 << 20}, {Off: 2 << 20, Len: 4096, Data: bytes.Repeat([]byte{2}, 4096)}}}
	server := "unix://" + apitest.Serve(t, node)
	path := filepath.Join(t.TempDir(), "volume.img")
	admin(t, "--server", server, "volume", "rescue", "export", "v", "alpha-e5", "--out", path).wantSuccess(t, path, "mount -o loop")
	want := make([]byte, 4<<20)
	copy(want[4096:8192], bytes.Repeat([]byte{1}, 4096))
	copy(want[2<<20:], bytes.Repeat([]byte{2}, 4096))
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v: not what was sent", len(got), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a volume's data lies in a file of mode %v, %v", info.Mode(), err)
	}
	admin(t, "--server", server, "volume", "rescue", "export", "v", "alpha-e5", "--out", path).wantFailure(t, 1, "there already")
}

func TestExportThatBreaksOffLeavesNothing(t *testing.T) {
	node := &apitest.Node{Parts: []api.RescuePart{{Size: 1 << 20}, {Len: 1, Data: []byte{1}}}, Err: api.Refused("it is no whole volume: --partial")}
	server := "unix://" + apitest.Serve(t, node)
	dir := t.TempDir()
	admin(t, "--server", server, "volume", "rescue", "export", "v", "alpha-e5", "--out", filepath.Join(dir, "volume.img")).wantFailure(t, 3, "--partial")
	admin(t, "--server", server, "volume", "rescue", "export", "v", "alpha-e5").wantFailure(t, 2, "--out")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestDeletionOfARescueImageAsks(t *testing.T) {
	node := &apitest.Node{Rescued: []api.RescueImage{{Volume: "v", ID: "alpha-e5", Node: "alpha", Blocks: 7, Bytes: 7 * 4096}}}
	server := "unix://" + apitest.Serve(t, node)
	asked := func() (n int) {
		for _, c := range node.Calls() {
			if c == "RescueDelete v alpha-e5" {
				n++
			}
		}
		return n
	}
	admin(t, "--server", server, "-o", "json", "volume", "rescue", "delete", "v", "alpha-e5").wantFailure(t, 3, "--yes")
	admin(t, "--server", server, "volume", "rescue", "delete", "v", "alpha-e6", "--yes").wantFailure(t, 1, "rescue list")
	if asked() > 0 {
		t.Fatal("deleted without consent")
	}
	admin(t, "--server", server, "volume", "rescue", "delete", "v", "alpha-e5", "--yes").wantSuccess(t, "deleted")
	if asked() != 1 {
		t.Fatalf("%d deletions", asked())
	}
}

// Of two images that are no whole volume, the list tells which one lacks what was overwritten.
func TestListTellsWhichImageIsNotComplete(t *testing.T) {
	node := &apitest.Node{Rescued: []api.RescueImage{{Volume: "v", ID: "alpha-e5-1", Node: "alpha", Complete: true}, {Volume: "v", ID: "alpha-e9-2", Node: "alpha"}}}
	server := "unix://" + apitest.Serve(t, node)
	o := admin(t, "--server", server, "volume", "rescue", "list")
	o.wantSuccess(t, "COMPLETE  WHOLE", "yes       no", "no        no")
	admin(t, "--server", server, "volume", "rescue", "show", "v", "alpha-e9-2").wantSuccess(t, "all that was overwritten  no")
}

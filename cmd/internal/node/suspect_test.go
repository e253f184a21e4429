package node

import (
	"errors"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/deadline"
	"hacluster/blockdev/meta"
)

var testID = meta.ID{1}

// openTestSuper is a process's handle on the superblock in dir.
func openTestSuper(t *testing.T, dir, boot string) *superblock {
	t.Helper()
	path := filepath.Join(dir, "superblock")
	sb := meta.Superblock{ClusterID: testID, VolumeID: testID, Node: "a", Size: 4096, BlockSize: 4096, DevicePath: "/d"}
	if err := meta.Create(path, sb); err != nil && !errors.Is(err, meta.ErrExists) {
		t.Fatal(err)
	}
	f, err := meta.Open(path, meta.Binding{ClusterID: testID, VolumeID: testID, Node: "a", Size: 4096, BlockSize: 4096, DevicePath: "/d"})
	if err != nil {
		t.Fatal(err)
	}
	s := &superblock{file: f, disk: deadline.New()}
	if s.suspect, err = openSuspect(dir, boot); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); s.suspect.close() })
	return s
}

func recalled(t *testing.T, s *superblock) bool {
	t.Helper()
	v := &volumes{n: &Node{log: slog.New(slog.DiscardHandler)}}
	if err := v.recall("v", s, ""); err != nil {
		t.Fatal(err)
	}
	return s.Failed()
}

// R20, R23: a process that is killed between an error of its disk and the note of it: the next one of this boot knows,
// on stable storage, and the one after that as well. After a restart of the machine it means nothing.
func TestFailureIsKnownAfterAKillBeforeItWasNoted(t *testing.T) {
	for _, c := range []struct {
		boot string
		want bool
	}{{"b001", true}, {"b002", false}} {
		dir := t.TempDir()
		old := openTestSuper(t, dir, "b001")
		if recalled(t, old) {
			t.Fatal("failed from the beginning")
		}
		old.suspect.mark(blockdev.OpFlush, syscall.EIO) // and is killed
		if got := recalled(t, openTestSuper(t, dir, c.boot)); got != c.want {
			t.Errorf("boot %s: failed %t", c.boot, got)
		}
		again := openTestSuper(t, dir, c.boot)
		if left, err := again.suspect.left(); left || err != nil || again.Failed() != c.want {
			t.Errorf("boot %s: left %t, %v, failed %t", c.boot, left, err, again.Failed())
		}
	}
}

// What is noted needs no memory; what fails while something else is being noted does.
func TestMarkStaysUntilItIsNoted(t *testing.T) {
	s := openTestSuper(t, t.TempDir(), "b001")
	left := func() bool {
		t.Helper()
		l, err := s.suspect.left()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	s.suspect.mark(blockdev.OpFlush, blockdev.ErrClosed)
	if left() {
		t.Error("a closed device is taken for a failed disk")
	}
	s.suspect.mark(blockdev.OpWrite, syscall.EIO)
	if err := s.SetHealth(false, true); err != nil || left() {
		t.Errorf("after the note: %v, left %t", err, left())
	}
	if err := s.suspect.during(func() error {
		s.suspect.mark(blockdev.OpFlush, syscall.EIO)
		return nil
	}); err != nil || !left() {
		t.Errorf("%v: a failure beside a change of the superblock is forgotten", err)
	}
	if err := s.suspect.during(func() error { return syscall.EIO }); err == nil || !left() {
		t.Error("forgotten although the superblock was not written")
	}
}

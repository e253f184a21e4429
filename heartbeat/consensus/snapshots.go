package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"hacluster/blockdev/deadline"
	"hacluster/blockdev/failpoint"
)

// snapshots puts a header before each snapshot's content, which repeats what the library keeps beside it in a file
// without a checksum: index, term and members. What does not match is damaged. It also times the calls.
//
//	0   8  magic "hacsnap\x01"
//	8   8  index            16  8  term
//	24  8  index of the members' entry
//	32  4  length of the encoded members, n
//	36  4  CRC-32C of bytes 0-35 and of the n bytes that follow
//	40  n  members, as raft encodes them
//
// The library's own checksum covers all of it, and the content.
type snapshots struct {
	raft.SnapshotStore
	watch *deadline.Watch
	dir   string
}

const (
	snapMagic   = "hacsnap\x01"
	snapHeadLen = 40
)

func encodeSnapHead(index, term, membersIndex uint64, members raft.Configuration) []byte {
	encoded := raft.EncodeConfiguration(members)
	h := make([]byte, snapHeadLen, snapHeadLen+len(encoded))
	copy(h, snapMagic)
	binary.LittleEndian.PutUint64(h[8:], index)
	binary.LittleEndian.PutUint64(h[16:], term)
	binary.LittleEndian.PutUint64(h[24:], membersIndex)
	binary.LittleEndian.PutUint32(h[32:], uint32(len(encoded)))
	sum := crc32.Update(crc32.Checksum(h[:36], castagnoli), castagnoli, encoded)
	binary.LittleEndian.PutUint32(h[36:], sum)
	return append(h, encoded...)
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration,
	membersIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	defer s.watch.Begin("create a snapshot")()
	failpoint.Hit(failpoint.RaftSnapshot)
	under, err := s.SnapshotStore.Create(version, index, term, members, membersIndex, trans)
	if err != nil {
		return nil, err
	}
	if _, err := under.Write(encodeSnapHead(index, term, membersIndex, members)); err != nil {
		_ = under.Cancel()
		return nil, fmt.Errorf("write the header of a snapshot: %w", err)
	}
	return &sink{SnapshotSink: under, watch: s.watch, dir: s.dir}, nil
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	defer s.watch.Begin("list the snapshots")()
	return s.SnapshotStore.List()
}

// Open checks a snapshot and returns its content without the header.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	defer s.watch.Begin("open a snapshot")()
	meta, content, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	want := encodeSnapHead(meta.Index, meta.Term, meta.ConfigurationIndex, meta.Configuration)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(content, got); err != nil {
		_ = content.Close()
		return nil, nil, fmt.Errorf("%w: snapshot %s: header: %w", ErrCorrupt, id, err)
	}
	if !bytes.Equal(got, want) {
		_ = content.Close()
		return nil, nil, fmt.Errorf("%w: snapshot %s: its header does not match its meta.json", ErrCorrupt, id)
	}
	stripped := *meta
	stripped.Size -= int64(len(want))
	return &stripped, content, nil
}

// sink times what is written.
type sink struct {
	raft.SnapshotSink
	watch *deadline.Watch
	dir   string
}

func (s *sink) Write(p []byte) (int, error) {
	defer s.watch.Begin("write a snapshot")()
	return s.SnapshotSink.Write(p)
}

// Close finishes a snapshot. The library flushes its files, and the name of the folder that they lie in, but not their
// own names in that folder; the log is only cut after this, and must not rest on files that a power cut takes away.
func (s *sink) Close() error {
	defer s.watch.Begin("finish a snapshot")()
	failpoint.Hit(failpoint.RaftSnapshotWritten)
	defer failpoint.Hit(failpoint.RaftSnapshotFinished)
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	if err := syncDirectory(filepath.Join(s.dir, s.ID())); err != nil {
		return fmt.Errorf("finish a snapshot: %w", err)
	}
	return nil
}

func (s *sink) Cancel() error {
	defer s.watch.Begin("discard a snapshot")()
	return s.SnapshotSink.Cancel()
}

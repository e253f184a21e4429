package replication

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/meta"
	"hacluster/heartbeat/cluster"
)

// fileSuper is a superblock in a file, as the daemon has it, of which a test knows what a power cut would leave.
type fileSuper struct {
	file *meta.File
	path string

	one sync.Mutex // one update at a time

	mu     sync.Mutex
	before []byte // what is durable while an update is on its way; nil: none is
	dead   bool
}

func (n *labNode) superPath() string {
	return filepath.Join(n.l.conf.files, fmt.Sprintf("%s-%x", n.name, n.boot[5]))
}

// openSuper opens the node's superblock, and makes it when the node is new.
func (n *labNode) openSuper() *fileSuper {
	path := n.superPath()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		sb := meta.Superblock{ClusterID: meta.ID{15: 1}, VolumeID: meta.ID{15: 7}, Node: n.name, Size: n.l.conf.size, BlockSize: blockdev.BlockSize,
			DevicePath: "/dev/" + n.name, Attachment: "1"}
		if err := meta.Create(path, sb); err != nil {
			n.l.t.Fatal(err)
		}
	}
	f, err := meta.Open(path, meta.Binding{ClusterID: meta.ID{15: 1}, VolumeID: meta.ID{15: 7}, Node: n.name, Size: n.l.conf.size,
		BlockSize: blockdev.BlockSize, DevicePath: "/dev/" + n.name, Attachment: "1"})
	if err != nil {
		n.l.t.Fatal(err)
	}
	return &fileSuper{file: f, path: path}
}

func (s *fileSuper) update(change func(*meta.Superblock)) error {
	s.one.Lock()
	defer s.one.Unlock()
	now, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return fmt.Errorf("%w: the power is off", errFault)
	}
	s.before = now
	s.mu.Unlock()
	err = s.file.Update(change)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = nil
	if s.dead {
		return fmt.Errorf("%w: the power is off", errFault)
	}
	return err
}

func (s *fileSuper) Epoch() cluster.Epoch { return cluster.Epoch(s.file.Get().Epoch) }
func (s *fileSuper) Inconsistent() bool   { return s.file.Get().Inconsistent }
func (s *fileSuper) Failed() bool         { return s.file.Get().Failed }

func (s *fileSuper) SetEpoch(e cluster.Epoch) error {
	return s.update(func(sb *meta.Superblock) { sb.Epoch = max(sb.Epoch, uint64(e)) })
}

func (s *fileSuper) SetHealth(inconsistent, failed bool) error {
	return s.update(func(sb *meta.Superblock) { sb.Inconsistent, sb.Failed = inconsistent, failed })
}

func (s *fileSuper) Clean() *cluster.Clean {
	c := s.file.Get().CleanStop
	if !c.Valid {
		return nil
	}
	return &cluster.Clean{Incarnation: cluster.Incarnation{Boot: hex.EncodeToString(c.BootID[:]), Attachment: c.Attachment}, Process: c.Start}
}

func (s *fileSuper) SetClean(c *cluster.Clean) error {
	if c == nil && !s.file.Get().CleanStop.Valid {
		return nil
	}
	var stop meta.CleanStop
	if c != nil {
		b, err := hex.DecodeString(c.Incarnation.Boot)
		if err != nil {
			return err
		}
		stop = meta.CleanStop{Valid: true, BootID: meta.ID(b), Attachment: c.Incarnation.Attachment, Start: c.Process}
	} else {
		failpoint.Hit(failpoint.CleanClear)
		defer failpoint.Hit(failpoint.CleanIsCleared)
	}
	return s.update(func(sb *meta.Superblock) { sb.CleanStop = stop })
}

var _ Superblock = (*fileSuper)(nil)

package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
)

// dataDir is a node's own folder, held under a lock for as long as the process lives.
type dataDir struct {
	path string
	lock *os.File
	id   nodeIdentity
}

// nodeIdentity is what makes a data directory this one and no other. It is replaced, under a new id, when the directory
// has no Raft state: a node that forgot its votes must not come back under its old name in the group (R32).
type nodeIdentity struct {
	Format int    `json:"format"`
	Node   string `json:"node"`
	ID     string `json:"id"`    // 32 hex digits
	Start  uint64 `json:"start"` // number of the newest process
	// Formation is the founding that this node agreed to, kept until the cluster has its identity.
	Formation *cluster.Init `json:"formation,omitempty"`
}

const identityFormat = 1

// openDataDir locks the folder and numbers this process.
func openDataDir(path, node string, hasRaft bool) (*dataDir, error) {
	if err := makeDataDir(path); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("data directory %s is used by another haclusterd: stop it, or give this one its own data_dir (%w)", path, err)
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.load(node, hasRaft); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) load(node string, hasRaft bool) error {
	b, err := os.ReadFile(d.file())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if hasRaft {
			return fmt.Errorf("%s is missing beside Raft state: restore it, or empty %s and have this node removed and added again", d.file(), d.path)
		}
	case err != nil:
		return fmt.Errorf("read the node's identity: %w", err)
	default:
		if err := json.Unmarshal(b, &d.id); err != nil {
			return fmt.Errorf("%s is damaged (%w): restore it, or empty %s and have this node removed and added again", d.file(), err, d.path)
		}
		if d.id.Format != identityFormat {
			return fmt.Errorf("%s has format %d, this program knows %d: run the version that wrote it", d.file(), d.id.Format, identityFormat)
		}
		if d.id.Node != node {
			return fmt.Errorf("%s belongs to node %q, this is node %q: give each node its own data_dir", d.path, d.id.Node, node)
		}
	}
	if !hasRaft || d.id.ID == "" { // whatever was agreed to, the log of it is gone or never came
		d.id = nodeIdentity{Format: identityFormat, Node: node, ID: newID(), Start: d.id.Start}
	}
	d.id.Start++
	return d.save()
}

func (d *dataDir) file() string { return filepath.Join(d.path, "identity.json") }

// raftID is this node's name in the Raft group: a wiped directory has another.
func (d *dataDir) raftID() string { return d.id.Node + "-" + d.id.ID[:12] }

// save writes the identity so that a crash leaves the old or the new one.
func (d *dataDir) save() error {
	b, err := json.MarshalIndent(d.id, "", " ")
	if err != nil {
		return fmt.Errorf("encode the node's identity: %w", err)
	}
	failpoint.Hit(failpoint.IdentitySave)
	defer failpoint.Hit(failpoint.IdentitySaved)
	if err := replaceFile(d.file(), b); err != nil {
		return fmt.Errorf("write the node's identity: %w", err)
	}
	return nil
}

// makeDirs makes a folder below top whose name survives a crash, with those between: what is flushed into a folder whose
// own name is lost is lost with it. An earlier process may have made them and crashed, so they are always flushed.
func makeDirs(top, path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for p := path; p != top && p != filepath.Dir(p); p = filepath.Dir(p) {
		if err := syncDir(filepath.Dir(p)); err != nil {
			return err
		}
	}
	return nil
}

// makeDataDir makes the folder that holds the node's votes. When it was there, made by another, it may lie where this user
// reads nothing: whoever made it saw to its name.
func makeDataDir(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	top := path
	for {
		_, err := os.Stat(top)
		if err == nil || top == filepath.Dir(top) {
			break
		}
		top = filepath.Dir(top)
	}
	made := top != path
	if !made {
		top = filepath.Dir(path)
	}
	if err := makeDirs(top, path); err != nil && (made || !errors.Is(err, fs.ErrPermission)) {
		return err
	}
	return nil
}

// replaceFile gives a file new content, durably: a crash leaves the old or the new one.
func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	failpoint.Hit(failpoint.IdentityWritten)
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	failpoint.Hit(failpoint.IdentityRenamed)
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// close gives the folder free, also where a process that is being started has a copy of the descriptor.
func (d *dataDir) close() {
	_ = unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)
	d.lock.Close()
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// onMemory reports whether the folder is on a file system that a power loss empties (C80).
func onMemory(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

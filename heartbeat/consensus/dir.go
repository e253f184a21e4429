package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"golang.org/x/sys/unix"

	"hacluster/blockdev/failpoint"
)

// directory is a node's Raft state on disk:
//
//	lock              held (flock) while open
//	making/           a state that is being made; renamed to state/ when it is complete
//	state/identity    whose state this is
//	state/mark        how far log and term had come
//	state/log/        raft-wal: wal-meta.db (term, vote, list of files) and *.wal
//	state/snapshots/  the newest two
//	state/damaged/    snapshots that failed their check and that the log made up for
type directory struct {
	root  string
	state string
	lock  *os.File
	meta  *metadb.BoltMetaDB
	wal   *wal.WAL
	logs  backend
	snaps *raft.FileSnapshotStore
	mark  *mark
}

const (
	segmentSize = 4 << 20 // bytes; allocated when a file of the log is made, so that an append does not run out of space
	remedy      = "do not let this node vote with it: remove the node from the cluster, delete the directory, " +
		"and let it join again as a new one"
)

// HasState tells whether dir holds Raft state: a vote, a term, log entries or a snapshot. State that is damaged is an
// error, never "none".
func HasState(dir string) (bool, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	d, err := lockDirectory(dir)
	if err != nil {
		return false, err
	}
	defer func() { _ = d.close() }()
	if fresh, err := d.fresh(); fresh || err != nil {
		return false, err
	}
	if _, err := d.readIdentity(); err != nil {
		return false, err
	}
	if err := d.openStores(newBridge(discard)); err != nil {
		return false, err
	}
	if _, err := d.verify(); err != nil {
		return false, err
	}
	return d.used()
}

// openDirectory opens the state of node id, or makes an empty one. What it returns has been verified.
func openDirectory(cfg Config, log *bridge) (*directory, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make Raft directory: %w", err)
	}
	// Votes and entries are as durable as the name of the folder that they lie in.
	if err := syncDirectory(filepath.Dir(cfg.Dir)); err != nil {
		return nil, fmt.Errorf("make Raft directory: %w", err)
	}
	d, err := lockDirectory(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := d.open(cfg, log); err != nil {
		_ = d.close()
		return nil, err
	}
	return d, nil
}

func (d *directory) open(cfg Config, log *bridge) error {
	fresh, err := d.fresh()
	if err != nil {
		return err
	}
	if fresh {
		if err := d.create(cfg.ID, log); err != nil {
			return fmt.Errorf("make Raft directory: %w", err)
		}
	}
	if err := d.checkIdentity(cfg.ID); err != nil {
		return err
	}
	if err := d.openStores(log); err != nil {
		return err
	}
	damaged, err := d.verify()
	if err != nil {
		return err
	}
	if err := d.setAside(damaged, cfg.Logger); err != nil {
		return err
	}
	return d.dropOverrun()
}

func lockDirectory(root string) (*directory, error) {
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the Raft directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s: another haclusterd has it open: stop that one first (%w)", ErrInUse, root, err)
	}
	return &directory{root: root, state: filepath.Join(root, "state"), lock: f}, nil
}

// fresh tells a directory that was never used.
func (d *directory) fresh() (bool, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return false, fmt.Errorf("read the Raft directory: %w", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "state":
			return false, nil
		case "lock", "making":
		default:
			return false, fmt.Errorf("%s holds %s, which is not Raft's: give Raft a directory of its own", d.root, e.Name())
		}
	}
	return true, nil
}

// create makes an empty state beside its place and moves it there, whole: after a crash the directory is fresh still,
// or complete.
func (d *directory) create(id string, log *bridge) error {
	making := &directory{root: d.root, state: filepath.Join(d.root, "making")}
	if err := os.RemoveAll(making.state); err != nil {
		return err
	}
	for _, sub := range []string{"log", "snapshots"} {
		if err := os.MkdirAll(making.file(sub), 0o700); err != nil {
			return err
		}
	}
	if err := writeDurably(making.file("mark"), encodeMark(point{})); err != nil {
		return err
	}
	if err := writeDurably(making.file("identity"), encodeIdentity(id)); err != nil {
		return err
	}
	var meta metadb.BoltMetaDB
	if _, err := meta.Load(making.file("log")); err != nil { // makes wal-meta.db, durably
		return err
	}
	if err := meta.Close(); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RaftCreate)
	if err := os.Rename(making.state, d.state); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RaftCreateRenamed)
	defer failpoint.Hit(failpoint.RaftCreated)
	return syncDirectory(d.root)
}

// openStores opens log, snapshots and mark.
func (d *directory) openStores(log *bridge) (err error) {
	defer func() {
		if err != nil {
			_ = d.closeStores()
		}
	}()
	if err := checkMeta(d.file("log", metadb.FileName)); err != nil {
		// Without it raft-wal would start an empty log, and delete the files of the old one because it does not list them.
		return fmt.Errorf("%w: %w: %s", ErrCorrupt, err, remedy)
	}
	if d.mark, err = openMark(d.file("mark")); err != nil {
		return fmt.Errorf("%w: %w: %s", ErrCorrupt, err, remedy)
	}
	d.meta = &metadb.BoltMetaDB{}
	err = guarded(func() (err error) {
		d.wal, err = wal.Open(d.file("log"), wal.WithLogger(log.Named("wal")), wal.WithSegmentSize(segmentSize), wal.WithMetaStore(d.meta))
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: open the log in %s: %w: %s", ErrCorrupt, d.file("log"), err, remedy)
	}
	d.logs = summed{d.wal}
	d.snaps, err = raft.NewFileSnapshotStoreWithLogger(d.state, keepSnaps, log.Named("snapshots"))
	if err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", d.state, err)
	}
	return nil
}

// used tells whether anything was ever stored.
func (d *directory) used() (used bool, err error) {
	err = guarded(func() (err error) {
		used, err = raft.HasExistingState(d.logs, d.logs, d.snaps)
		return err
	})
	return used, err
}

func (d *directory) closeStores() error {
	var errs []error
	if d.wal != nil {
		errs = append(errs, d.wal.Close())
	} else if d.meta != nil {
		errs = append(errs, d.meta.Close()) // a failed wal.Open leaves it open, locked against the next try
	}
	if d.mark != nil {
		errs = append(errs, d.mark.close())
	}
	d.wal, d.meta, d.mark = nil, nil, nil
	return errors.Join(errs...)
}

func (d *directory) close() error {
	err := d.closeStores()
	// Not by closing it alone: a process that is being started has a copy of the descriptor until it is another program.
	return errors.Join(err, unix.Flock(int(d.lock.Fd()), unix.LOCK_UN), d.lock.Close())
}

func (d *directory) file(parts ...string) string {
	return filepath.Join(append([]string{d.state}, parts...)...)
}

// writeDurably makes a new file whose content and name survive a crash.
func writeDurably(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

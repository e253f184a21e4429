package consensus

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"hacluster/blockdev/deadline"
)

var discard = slog.New(slog.DiscardHandler)

// verify checks that what is stored is whole before raft builds on it: raft panics over a hole in the log, takes an
// older snapshot in silence when the newest is damaged, and raft-wal takes a damaged end of the log for its end.
//
// The state is whole if some good snapshot (or none), together with the entries behind it, reaches as far as the
// newest snapshot ever taken and as the mark, and no entry is of a later term than the stored one. The snapshots that
// are damaged, but made up for by the log, are returned.
func (d *directory) verify() (damaged []string, err error) {
	err = guarded(func() (err error) { damaged, err = d.check(); return err })
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, remedy)
	}
	return damaged, nil
}

func (d *directory) check() (damaged []string, err error) {
	base, newest, damaged, err := d.checkSnapshots()
	if err != nil {
		return nil, err
	}
	first, last, lastTerm, err := d.checkLog()
	if err != nil {
		return nil, err
	}
	reach := max(base.index, last)
	term, err := d.logs.GetUint64([]byte(keyCurrentTerm))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: read the term in %s: %w", ErrCorrupt, d.file("log"), err)
	case last > base.index && first > base.index+1:
		return nil, fmt.Errorf("%w: %s begins with entry %d, but the newest good snapshot in %s ends with %d",
			ErrCorrupt, d.file("log"), first, d.file("snapshots"), base.index)
	case reach < newest.index:
		return nil, fmt.Errorf("%w: the snapshot up to entry %d in %s is damaged, and the log reaches only to %d",
			ErrCorrupt, newest.index, d.file("snapshots"), reach)
	case reach < d.mark.at.index:
		return nil, fmt.Errorf("%w: state went back: entry %d had been stored, but %s reaches only to %d",
			ErrCorrupt, d.mark.at.index, d.file("log"), reach)
	case term < d.mark.at.term:
		return nil, fmt.Errorf("%w: state went back: term %d had been stored, but %s says %d",
			ErrCorrupt, d.mark.at.term, d.file("log"), term)
	case max(base.term, lastTerm) > term:
		return nil, fmt.Errorf("%w: the log holds an entry of term %d, but the stored term is %d in %s",
			ErrCorrupt, max(base.term, lastTerm), term, d.file("log"))
	}
	return damaged, nil
}

// checkSnapshots opens every snapshot. good is the newest whole one, newest the newest that there should be: a name
// tells term and index even when the content does not.
func (d *directory) checkSnapshots() (good, newest point, damaged []string, err error) {
	entries, err := os.ReadDir(d.file("snapshots"))
	if err != nil {
		return point{}, point{}, nil, fmt.Errorf("%w: read the snapshots: %w", ErrCorrupt, err)
	}
	checked := &snapshots{SnapshotStore: d.snaps, watch: deadline.New()}
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		var at point
		var millis int64
		if _, err := fmt.Sscanf(e.Name(), "%d-%d-%d", &at.term, &at.index, &millis); err != nil {
			return point{}, point{}, nil, fmt.Errorf("%w: %s is not named as a snapshot is", ErrCorrupt, d.file("snapshots", e.Name()))
		}
		if at.index > newest.index {
			newest = at
		}
		meta, content, err := checked.Open(e.Name())
		if err == nil {
			_ = content.Close()
		}
		if err != nil || meta.Index != at.index || meta.Term != at.term {
			damaged = append(damaged, e.Name())
		} else if at.index > good.index {
			good = at
		}
	}
	return good, newest, damaged, nil
}

// checkLog reads every entry.
func (d *directory) checkLog() (first, last, lastTerm uint64, err error) {
	if first, err = d.logs.FirstIndex(); err != nil {
		return 0, 0, 0, fmt.Errorf("%w: read the log in %s: %w", ErrCorrupt, d.file("log"), err)
	}
	if last, err = d.logs.LastIndex(); err != nil {
		return 0, 0, 0, fmt.Errorf("%w: read the log in %s: %w", ErrCorrupt, d.file("log"), err)
	}
	if last == 0 {
		return 0, 0, 0, nil
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := d.logs.GetLog(i, &l); err != nil {
			return 0, 0, 0, fmt.Errorf("%w: read entry %d of %d-%d in %s: %w", ErrCorrupt, i, first, last, d.file("log"), err)
		}
		if l.Term < lastTerm {
			return 0, 0, 0, fmt.Errorf("%w: entry %d in %s is of term %d, the one before of %d", ErrCorrupt, i, d.file("log"), l.Term, lastTerm)
		}
		lastTerm = l.Term
	}
	return first, last, lastTerm, nil
}

// dropOverrun empties a log that ends before the newest snapshot: a crash came between the arrival of a leader's
// snapshot and the removal of the log that it replaces. raft would append behind the snapshot, and raft-wal refuses
// entries that do not follow its last.
func (d *directory) dropOverrun() error {
	good, _, _, err := d.checkSnapshots()
	if err != nil {
		return err
	}
	first, err := d.logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	last, err := d.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if last == 0 || last >= good.index {
		return nil
	}
	if err := d.logs.DeleteRange(first, last); err != nil {
		return fmt.Errorf("empty the log that a snapshot has replaced: %w", err)
	}
	return nil
}

// setAside moves damaged snapshots out of raft's way, which would offer the newest one to its followers whatever its
// state, and removes unfinished ones.
func (d *directory) setAside(damaged []string, log *slog.Logger) error {
	unfinished, _ := filepath.Glob(d.file("snapshots", "*.tmp"))
	for _, path := range unfinished {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove an unfinished snapshot: %w", err)
		}
	}
	for _, name := range slices.Sorted(slices.Values(damaged)) {
		to := d.file("damaged", name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return fmt.Errorf("set a damaged snapshot aside: %w", err)
		}
		if err := os.Rename(d.file("snapshots", name), to); err != nil {
			return fmt.Errorf("set a damaged snapshot aside: %w", err)
		}
		log.Warn("a Raft snapshot was damaged; the log makes up for it", "moved_to", to)
	}
	return nil
}

// configurations shows every configuration that the log holds, oldest first.
func configurations(logs raft.LogStore, show func(point, raft.Configuration)) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	for i := first; i != 0 && i <= last; i++ {
		var l raft.Log
		if err := logs.GetLog(i, &l); err != nil {
			return fmt.Errorf("read entry %d of the log: %w", i, err)
		}
		if l.Type == raft.LogConfiguration {
			show(point{l.Index, l.Term}, raft.DecodeConfiguration(l.Data))
		}
	}
	return nil
}

package consensus

import "fmt"

// Reached tells how far the state in dir has come: its term, and the last entry of its log or snapshots. Others may
// remember more: then the state went back, and must not vote (R32).
func Reached(dir string) (term, index uint64, err error) {
	d, err := lockDirectory(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = d.close() }()
	if _, err := d.readIdentity(); err != nil {
		return 0, 0, err
	}
	if err := d.openStores(newBridge(discard)); err != nil {
		return 0, 0, err
	}
	if used, err := d.used(); !used || err != nil {
		return 0, 0, err
	}
	err = guarded(func() (err error) {
		if term, err = d.logs.GetUint64([]byte(keyCurrentTerm)); err != nil {
			return fmt.Errorf("read the term in %s: %w", d.root, err)
		}
		if index, err = d.logs.LastIndex(); err != nil {
			return fmt.Errorf("read the last index in %s: %w", d.root, err)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	snaps, err := d.snaps.List()
	if err != nil {
		return 0, 0, fmt.Errorf("list the snapshots in %s: %w", d.root, err)
	}
	for _, s := range snaps {
		index = max(index, s.Index)
	}
	return term, index, nil
}

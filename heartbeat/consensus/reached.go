package consensus

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// Reach is how far the state in a directory has come.
type Reach struct {
	Term  uint64
	Index uint64 // of the last entry of its log or snapshots
	// Voters are the ids that vote by its newest configuration.
	Voters []string
}

// Reached tells how far the state of node id, in dir, has come. Others may remember more: then the state went back, and must
// not vote (R32). State of another node is refused: others that heard its reach as this node's would remember that, and
// refuse this node when it comes back with its own.
func Reached(dir, id string) (Reach, error) {
	d, err := lockDirectory(dir)
	if err != nil {
		return Reach{}, err
	}
	defer func() { _ = d.close() }()
	if err := d.checkIdentity(id); err != nil {
		return Reach{}, err
	}
	if err := d.openStores(newBridge(discard)); err != nil {
		return Reach{}, err
	}
	if used, err := d.used(); !used || err != nil {
		return Reach{}, err
	}
	var r Reach
	err = guarded(func() (err error) {
		r, err = d.reached()
		return err
	})
	if err != nil {
		return Reach{}, err
	}
	return r, nil
}

func (d *directory) reached() (r Reach, err error) {
	if r.Term, err = d.logs.GetUint64([]byte(keyCurrentTerm)); err != nil {
		return r, fmt.Errorf("read the term in %s: %w", d.root, err)
	}
	if r.Index, err = d.logs.LastIndex(); err != nil {
		return r, fmt.Errorf("read the last index in %s: %w", d.root, err)
	}
	snaps, err := d.snaps.List()
	if err != nil {
		return r, fmt.Errorf("list the snapshots in %s: %w", d.root, err)
	}
	var members raft.Configuration
	newest := uint64(0)
	for _, s := range snaps {
		r.Index = max(r.Index, s.Index)
		if s.Index > newest {
			newest, members = s.Index, s.Configuration
		}
	}
	// Entries that a snapshot covers may still be in the log: those after it say the same or something newer.
	if err := configurations(d.logs, func(_ point, c raft.Configuration) { members = c }); err != nil {
		return r, err
	}
	for _, s := range members.Servers {
		if s.Suffrage == raft.Voter {
			r.Voters = append(r.Voters, string(s.ID))
		}
	}
	return r, nil
}

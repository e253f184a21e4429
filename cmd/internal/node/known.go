package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hacluster/heartbeat/cluster"
)

// knownPause bounds how often the known state is written.
const knownPause = time.Second

// keepKnown writes the cluster's state beside Raft's as it changes. Raft applies nothing after a start before a leader
// has said what is committed, so that a node alone would know nothing to tell an operator. It is for status only:
// nothing is decided on it, and it is not flushed.
func (n *Node) keepKnown(ctx context.Context) error {
	for {
		st, changed := n.state.watch()
		pause := time.Duration(0)
		if st.ID != "" {
			pause = knownPause
			end := n.disk.Begin("keep the known state")
			err := writeKnown(n.knownFile(), st)
			end()
			if err != nil {
				n.log.Warn("the state of the cluster is not kept for a status without quorum", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		select {
		case <-ctx.Done(): // once more, with the newest
		case <-time.After(pause):
		}
	}
}

func (n *Node) knownFile() string { return filepath.Join(n.cfg.DataDir(), "known.json") }

func writeKnown(path string, st *cluster.State) error {
	b, err := st.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return os.Rename(path+".new", path)
}

// lastKnown is the state that was kept, nil when there is none that can be read.
func (n *Node) lastKnown() *cluster.State {
	b, err := os.ReadFile(n.knownFile())
	if err != nil || !n.old { // without Raft state it is of an earlier life of the directory
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("the kept state of the cluster is not used", "file", n.knownFile(), "error", err)
		}
		return nil
	}
	st, err := cluster.Decode(b)
	if err != nil {
		n.log.Warn("the kept state of the cluster is not used", "file", n.knownFile(), "error", err)
		return nil
	}
	return st
}

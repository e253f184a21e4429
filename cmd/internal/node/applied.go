package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// runConfig is the configuration that this node runs with: the file's until Raft has told another, then the applied
// one, whatever the file says.
type runConfig struct {
	mu      sync.Mutex
	version uint64 // 0: the file's
	cfg     *config.Config
	changed chan struct{} // closed and replaced by each change
}

func (r *runConfig) watch() (version uint64, cfg *config.Config, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version, r.cfg, r.changed
}

func (r *runConfig) set(version uint64, cfg *config.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version, r.cfg = version, cfg
	if r.changed != nil {
		close(r.changed)
	}
	r.changed = make(chan struct{})
}

// conf is what the node runs with now: the file, before New has looked for anything else.
func (n *Node) conf() *config.Config {
	if _, cfg, _ := n.run.watch(); cfg != nil {
		return cfg
	}
	return n.cfg
}

// kept is the applied configuration as it stands in data_dir, so that a start has it before Raft has told anything.
type kept struct {
	Format  int    `json:"format"`
	Version uint64 `json:"version"`
	Text    []byte `json:"text"`
}

const keptFormat = 1

func keptFile(dataDir string) string { return filepath.Join(dataDir, "applied.json") }

// atStart is what a node begins with: what was applied when its directory was last used, else its file. Nothing that
// is decided for safety rests on it: leases and volumes are Raft's.
func atStart(file *config.Config, old bool, log *slog.Logger) (version uint64, cfg *config.Config) {
	if !old {
		return 0, file
	}
	path := keptFile(file.DataDir())
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, file
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err == nil && k.Format != keptFormat {
		err = fmt.Errorf("it has format %d, this program reads format %d", k.Format, keptFormat)
	}
	if err == nil {
		cfg, err = readApplied(file, k.Text)
	}
	if err != nil {
		log.Error("the applied configuration in data_dir is not used: the file's is, until the cluster has told", "file", path, "error", err)
		return 0, file
	}
	return k.Version, cfg
}

// readApplied reads a text that the cluster keeps.
func readApplied(file *config.Config, packed []byte) (*config.Config, error) {
	src, err := config.Unpack(packed)
	if err != nil {
		return nil, err
	}
	cfg, _, err := file.With("the applied configuration", src)
	return cfg, err
}

// followConfig takes over what is applied, as Raft tells it. What cannot be read here changes nothing (faults.md C81).
func (n *Node) followConfig(ctx context.Context) error {
	refused := uint64(0)
	for {
		st, changed := n.state.watch()
		if version, _, _ := n.run.watch(); len(st.Config) > 0 && st.ConfigVersion > version && st.ConfigVersion != refused {
			if err := n.adopt(st); err != nil {
				refused = st.ConfigVersion
				n.log.Error("the applied configuration cannot be used here: this node goes on with what it has", "version", st.ConfigVersion, "error", err)
				n.events.add("configuration refused", "", fmt.Sprintf("version %d: %v", st.ConfigVersion, err))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// adopt keeps what is applied and runs with it from here on.
func (n *Node) adopt(st *cluster.State) error {
	cfg, err := readApplied(n.cfg, st.Config)
	if err != nil {
		return err
	}
	b, err := json.Marshal(kept{Format: keptFormat, Version: st.ConfigVersion, Text: st.Config})
	if err == nil {
		done := n.disk.Begin("keep the applied configuration")
		err = replaceFile(keptFile(n.cfg.DataDir()), b)
		done()
	}
	if err != nil { // the next start begins with an older one, until Raft tells
		n.log.Error("the applied configuration is not kept", "file", keptFile(n.cfg.DataDir()), "error", err)
	}
	before := n.conf()
	n.run.set(st.ConfigVersion, cfg)
	n.lease.kickNow()
	n.retime(cfg)
	if before.Hash() != cfg.Hash() {
		n.log.Info("running with another configuration", "version", st.ConfigVersion, "rto", cfg.Timers.RTO)
	}
	return nil
}

// retime gives the parts that keep time by themselves what follows from the configuration. The others ask at each turn.
func (n *Node) retime(cfg *config.Config) {
	r := n.raftIfOpen()
	if r == nil {
		return // it is opened with what holds then
	}
	r.SetDiskDeadline(cfg.Cluster.DiskDeadline)
	got, err := r.SetTimers(cfg.Timers.RaftHeartbeat, cfg.Timers.RaftElection)
	if err != nil {
		n.log.Error("Raft keeps its timers", "error", err)
	} else if got != cfg.Timers.RaftHeartbeat {
		n.log.Warn("Raft's heartbeat follows the RTO target only in part until this daemon is started anew", "wanted", cfg.Timers.RaftHeartbeat, "in_force", got)
	}
}

// fileHash is the hash of the file on disk as it is now; empty when it cannot be read or is wrong. It is read again when
// it changed.
type fileHash struct {
	mu   sync.Mutex
	at   time.Time
	size int64
	hash string
}

func (n *Node) hashOfFile() string {
	h := &n.onDisk
	h.mu.Lock()
	defer h.mu.Unlock()
	info, err := os.Stat(n.cfg.File)
	if err != nil {
		h.at, h.hash = time.Time{}, ""
		return ""
	}
	if info.ModTime().Equal(h.at) && info.Size() == h.size {
		return h.hash
	}
	h.at, h.size, h.hash = info.ModTime(), info.Size(), ""
	src, err := os.ReadFile(n.cfg.File)
	if err != nil {
		return ""
	}
	if cfg, _, err := n.cfg.With(n.cfg.File, src); err == nil {
		h.hash = cfg.Hash()
	}
	return h.hash
}

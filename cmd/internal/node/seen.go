package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
)

// seenBook is what this node remembers of each voter: the highest term, and the newest committed entry that it had
// (R32). Neither goes back while its disk keeps what it stored, so a voter that has less was restored or rolled back.
//
// It is kept on disk as well, for all who remember may be restarted while one is being rolled back: at each new term,
// when an index grew by seenStep, and at the end. A crash may forget the last step of the index, never a term that was
// noted a moment before. And it is passed on, by the leader with its questions and to whoever starts: two voters may have
// gone on while the third was away, and that one may be the only one to ask when the next is rolled back.
type seenBook struct {
	mu   sync.Mutex
	by   map[string]control.Seen // by Raft id; at most maxSeen
	kept map[string]control.Seen // as on disk
	news chan struct{}           // to keepSeen: there is something to write; room for one
}

const (
	seenStep = 256 // entries
	maxSeen  = 64
)

func newSeenBook() *seenBook {
	return &seenBook{by: map[string]control.Seen{}, kept: map[string]control.Seen{}, news: make(chan struct{}, 1)}
}

func (b *seenBook) note(raftID string, s control.Seen) {
	if raftID == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.by[raftID]
	if !known && len(b.by) >= maxSeen {
		return // far more than ever voted: whoever sends this makes names up
	}
	s = control.Seen{Term: max(old.Term, s.Term), Index: max(old.Index, s.Index)}
	b.by[raftID] = s
	if k := b.kept[raftID]; s.Term > k.Term || s.Index >= k.Index+seenStep {
		select {
		case b.news <- struct{}{}:
		default:
		}
	}
}

// take notes what another node remembers: of this one, and of all voters.
func (b *seenBook) take(self string, r *control.HelloReply) {
	b.note(self, r.Seen)
	for id, s := range r.Voters {
		b.note(id, s)
	}
}

// forget drops what is remembered of ids that are not among those given: they never vote again.
func (b *seenBook) forget(except map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.by, func(id string, _ control.Seen) bool { return !except[id] })
}

// save writes what is not on disk yet, so that a crash leaves the old file or the new one.
func (b *seenBook) save(path string) error {
	now := b.all()
	b.mu.Lock()
	same := maps.Equal(now, b.kept)
	b.mu.Unlock()
	if same {
		return nil
	}
	if err := replaceFile(path, encodeSeen(now)); err != nil {
		return fmt.Errorf("keep what is remembered of the voters: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = now
	return nil
}

// load reads what an earlier process kept; none is no error.
func (b *seenBook) load(path string) error {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	by, err := decodeSeen(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by, b.kept = by, maps.Clone(by)
	return nil
}

// The file is a line with format and checksum (CRC-32C, hexadecimal) of the rest, and the rest in JSON.
const seenFormat = "hacluster voters 1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeSeen(by map[string]control.Seen) []byte {
	body, err := json.Marshal(by)
	if err != nil {
		panic("node: encode what is remembered of the voters: " + err.Error()) // plain data: cannot happen
	}
	return fmt.Appendf(nil, "%s %08x\n%s", seenFormat, crc32.Checksum(body, castagnoli), body)
}

func decodeSeen(raw []byte) (map[string]control.Seen, error) {
	head, body, _ := bytes.Cut(raw, []byte{'\n'})
	if want := fmt.Sprintf("%s %08x", seenFormat, crc32.Checksum(body, castagnoli)); string(head) != want {
		return nil, fmt.Errorf("it begins with %.60q, %q is expected: it is damaged, or of another version", head, want)
	}
	by := map[string]control.Seen{}
	if err := json.Unmarshal(body, &by); err != nil {
		return nil, err
	}
	return by, nil
}

func (n *Node) seenFile() string { return filepath.Join(n.cfg.DataDir(), "voters") }

// loadSeen begins with what an earlier process remembered. A damaged file is not used: the others remember too.
func (n *Node) loadSeen() *seenBook {
	b := newSeenBook()
	if err := b.load(n.seenFile()); err != nil {
		n.log.Warn("what was remembered of the voters is not used", "error", err)
	}
	return b
}

// seenPause bounds how often it is written.
const seenPause = 500 * time.Millisecond

// keepSeen writes what is remembered of the voters as it grows, and once more at the end.
func (n *Node) keepSeen(ctx context.Context) error {
	told := ""
	for {
		select {
		case <-n.seen.news:
		case <-ctx.Done():
		}
		last := ctx.Err() != nil // before it is written: what is noted while that goes on is written once more
		// A state that has just been restored from a snapshot does not know who was added since.
		if ids := n.raftIDs(); len(ids) > 0 && n.state.get().Index >= n.seen.of(n.dir.raftID()).Index {
			n.seen.forget(ids)
		}
		end := n.disk.Begin("keep what is remembered of the voters")
		err := n.seen.save(n.seenFile())
		end()
		if err != nil && err.Error() != told {
			told = err.Error()
			n.log.Error("a restart of this node forgets how far the voters had come", "error", err)
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(seenPause):
		}
	}
}

// raftIDs are the ids of the cluster's nodes, none before its state is known here.
func (n *Node) raftIDs() map[string]bool {
	ids := map[string]bool{}
	for _, node := range n.state.get().Nodes {
		ids[node.RaftID] = true
	}
	return ids
}

func (b *seenBook) of(raftID string) control.Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.by[raftID]
}

func (b *seenBook) all() map[string]control.Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.by)
}

// reached is how far this node has come: what it applied was committed, so its log never loses it.
func (n *Node) reached(r *consensus.Raft) control.Seen {
	return control.Seen{Term: r.Term(), Index: n.state.get().Index}
}

// checkReached asks the others, before Raft is opened and could vote, whether they remember more of this node than it
// remembers itself (R32).
func (n *Node) checkReached(ctx context.Context) error {
	mine, err := consensus.Reached(filepath.Join(n.cfg.DataDir(), "raft"), n.dir.raftID())
	if err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	// Not how long its log is: what is behind the last commit another leader may overrule, and a healthy voter has less then.
	n.seen.note(n.dir.raftID(), control.Seen{Term: mine.Term})
	call := rollCall{patience: n.cfg.Cluster.RTO}
	if slices.Contains(mine.Voters, n.dir.raftID()) {
		call.others = len(mine.Voters) - 1
	}
	for told := false; ; {
		answered := n.askReached(ctx, mine.Voters)
		if call.over(n.now(), answered) {
			break
		}
		if !told {
			told = true
			n.log.Warn("waiting for other voters before taking part", "answered", answered, "others", call.others)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
	if s := n.seen.of(n.dir.raftID()); s.Term > mine.Term || s.Index > mine.Index {
		return fmt.Errorf("%s was restored or copied: its Raft state has term %d and entries up to %d, others remember term %d and entry %d of it; "+
			"it must not vote with an old state: run `ha-admin node remove %s`, empty the directory, start, and run `ha-admin node add %s`",
			n.cfg.DataDir(), mine.Term, mine.Index, s.Term, s.Index, n.me.Name, n.me.Name)
	}
	return nil
}

// rollCall decides for how long a voter that starts waits for the others' memory of it. What it had a part in may be known to
// a single one of them, so all that start together with it are waited for; but whoever is gone must not keep the rest from
// going on.
type rollCall struct {
	others   int           // voters beside this one; 0: it is none
	patience time.Duration // with those that are missing, once enough have answered to give a vote any weight
	enough   bool
	since    cluster.Instant // when that was so first
}

// over reports whether the voter may take part, when so many have answered.
func (c *rollCall) over(now cluster.Instant, answered int) bool {
	if !c.enough && answered >= (c.others+1)/2 { // with this one, a majority
		c.enough, c.since = true, now
	}
	return answered >= c.others || c.enough && now.Sub(c.since) >= c.patience
}

// askReached asks every other node once and counts the voters that answered.
func (n *Node) askReached(ctx context.Context, voters []string) (answered int) {
	var mu sync.Mutex
	var goes sync.WaitGroup
	for _, name := range n.others("") {
		goes.Go(func() {
			h, err := n.hello(ctx, name)
			if err != nil {
				return
			}
			n.seen.take(n.dir.raftID(), h)
			mu.Lock()
			defer mu.Unlock()
			if slices.Contains(voters, h.RaftID) {
				answered++
			}
		})
	}
	goes.Wait()
	return answered
}

package scenario

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/history"
	"hacluster/cmd/internal/lab/topology"
)

// View is what one node said of the cluster, over its local socket.
type View struct {
	At      time.Duration `json:"at"` // when it was asked
	Node    string        `json:"node"`
	Quorum  bool          `json:"quorum"`
	Leader  string        `json:"leader"`
	Epoch   uint64        `json:"epoch"`
	Primary string        `json:"primary"`
	State   string        `json:"state"`
	InSync  []string      `json:"in_sync"`
	Err     string        `json:"err,omitempty"`
}

func (v View) same(o View) bool {
	return v.Quorum == o.Quorum && v.Leader == o.Leader && v.Epoch == o.Epoch && v.Primary == o.Primary &&
		v.State == o.State && slices.Equal(v.InSync, o.InSync) && (v.Err == "") == (o.Err == "")
}

// watcher asks all nodes again and again and keeps what changed: the timeline of the run.
type watcher struct {
	lab   *topology.Lab
	nodes []string

	mu       sync.Mutex
	views    []View          // each node's, whenever it changed
	latest   map[string]View // each node's last
	tenures  map[uint64]string
	twoOfOne []string      // an epoch with two primaries: must never be
	changed  chan struct{} // closed and replaced with each answer
}

const (
	askEvery = 100 * time.Millisecond
	askLimit = 2 * time.Second
)

func newWatcher(lab *topology.Lab, nodes []string) *watcher {
	return &watcher{lab: lab, nodes: nodes, latest: map[string]View{}, tenures: map[uint64]string{}, changed: make(chan struct{})}
}

func (w *watcher) run(ctx context.Context) {
	var all sync.WaitGroup
	for _, n := range w.nodes {
		all.Go(func() { w.follow(ctx, n) })
	}
	all.Wait()
}

func (w *watcher) follow(ctx context.Context, node string) {
	var c *api.Client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	t := time.NewTicker(askEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		c = w.ask(ctx, node, c)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

// ask asks once; it returns the connection to ask again, nil when a new one is needed.
func (w *watcher) ask(ctx context.Context, node string, c *api.Client) *api.Client {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	v := View{At: history.Clock(), Node: node}
	var err error
	if c == nil {
		if c, err = api.Dial(ctx, []string{socket(w.lab, node)}, api.DialSocket); err != nil {
			v.Err = err.Error()
			w.note(v)
			return nil
		}
	}
	s, _, err := c.Status(ctx, "")
	if err != nil {
		c.Close()
		v.Err = err.Error()
		w.note(v)
		return nil
	}
	v.Quorum, v.Leader = s.Quorum, s.Leader
	if len(s.Volumes) == 1 {
		vol := s.Volumes[0]
		v.Epoch, v.Primary, v.State, v.InSync = vol.Epoch, vol.Primary, vol.State, vol.InSync
	}
	w.note(v)
	return c
}

func socket(lab *topology.Lab, node string) string {
	return filepath.Join(lab.DataDir(node), "admin.sock")
}

func (w *watcher) note(v View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, ok := w.latest[v.Node]; !ok || !last.same(v) {
		w.views = append(w.views, v)
	}
	w.latest[v.Node] = v
	if v.Err == "" && v.Primary != "" {
		w.tenureLocked(v.Epoch, v.Primary)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watcher) tenureLocked(epoch uint64, node string) {
	if had, ok := w.tenures[epoch]; ok && had != node {
		w.twoOfOne = append(w.twoOfOne, "epoch "+itoa(epoch)+" has two primaries: "+had+" and "+node)
	}
	w.tenures[epoch] = node
}

// learn adds what the list of failovers tells: tenures too short to be seen.
func (w *watcher) learn(past []api.Failover) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range past {
		w.tenureLocked(f.Epoch, f.To)
	}
}

// until waits until what any node says with quorum is as wanted, asked after now.
func (w *watcher) until(ctx context.Context, want func(View) bool) (View, error) {
	since := history.Clock()
	for {
		w.mu.Lock()
		changed := w.changed
		var found *View
		for _, v := range w.latest {
			if v.Err == "" && v.Quorum && v.At > since && want(v) {
				found = &v
			}
		}
		w.mu.Unlock()
		if found != nil {
			return *found, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return View{}, ctx.Err()
		}
	}
}

// present is the newest view of the highest epoch.
func (w *watcher) present() (v View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.latest {
		if o.Err == "" && o.Quorum && (o.Epoch > v.Epoch || o.Epoch == v.Epoch && o.At > v.At) {
			v = o
		}
	}
	return v
}

// timeline returns what was seen.
func (w *watcher) timeline() (views []View, tenures []history.Tenure, bad []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var epochs []uint64
	for e := range w.tenures {
		epochs = append(epochs, e)
	}
	slices.Sort(epochs)
	for _, e := range epochs {
		tenures = append(tenures, history.Tenure{Epoch: e, Node: w.tenures[e]})
	}
	return slices.Clone(w.views), tenures, slices.Clone(w.twoOfOne)
}

// said lists what each node said at last, for messages.
func (w *watcher) said() (all []View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		all = append(all, w.latest[n])
	}
	return all
}

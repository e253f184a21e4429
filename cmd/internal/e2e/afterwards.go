package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"hacluster/cmd/internal/api"
)

// StopAndCompare stops all daemons in order, the primary after its standbys so that the role stays where it is, and
// compares the copies of the volume.
func (c *Cluster) StopAndCompare(primary string) error {
	data := c.DataNodes()
	order := slices.DeleteFunc(slices.Clone(data), func(n string) bool { return n == primary })
	for _, n := range append(append(order, primary), c.Nodes()[len(data):]...) {
		code, err := c.Stop(n)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("%s ended with exit code %d after SIGTERM: see %s", n, code, c.Log(n))
		}
	}
	for _, n := range data[1:] {
		blocks, err := Differing(c.Disk(data[0]), c.Disk(n))
		if err == nil && len(blocks) > 0 {
			err = fmt.Errorf("the copies of %s and %s differ in %d blocks, the first is block %d", data[0], n, len(blocks), blocks[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Elections is how often a node became leader of the Raft group, by the logs.
func (c *Cluster) Elections() (n int, err error) {
	for _, node := range c.Nodes() {
		b, err := os.ReadFile(c.Log(node))
		if err != nil {
			return 0, err
		}
		n += bytes.Count(b, []byte(`msg="this node leads the Raft group" `))
	}
	return n, nil
}

// EventKinds counts what happened, by the history that all nodes share.
func (c *Cluster) EventKinds(ctx context.Context) (map[string]int, error) {
	out, errs, code := c.Admin(ctx, "events", "-o", "json")
	if code != 0 {
		return nil, fmt.Errorf("ha-admin events: exit code %d: %s", code, errs)
	}
	kinds, in := map[string]int{}, json.NewDecoder(bytes.NewReader([]byte(out)))
	for in.More() {
		var e api.Event
		if err := in.Decode(&e); err != nil {
			return nil, fmt.Errorf("ha-admin events: %w", err)
		}
		kinds[e.Kind]++
	}
	return kinds, nil
}

// ShowLogs prints the end of each node's log.
func (c *Cluster) ShowLogs(w io.Writer, lines int) {
	for _, n := range c.Nodes() {
		b, err := os.ReadFile(c.Log(n))
		if err != nil {
			continue // it never started
		}
		all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
		fmt.Fprintf(w, "--- the end of %s\n%s\n", filepath.Base(c.Log(n)), bytes.Join(all[max(len(all)-lines, 0):], []byte("\n")))
	}
}

// ShowEvents prints what the cluster tells of itself.
func (c *Cluster) ShowEvents(w io.Writer) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, errs, _ := c.Admin(ctx, "events")
	fmt.Fprintf(w, "--- ha-admin events\n%s%s\n", out, errs)
}

// Dump ends what still runs in a way that leaves the stacks of all goroutines in the logs.
func (c *Cluster) Dump() {
	for _, n := range c.Nodes() {
		if c.Signal(n, syscall.SIGQUIT) != nil {
			continue // it runs no more
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, _ = c.Wait(ctx, n) // a stopped one does not end; Close kills it
		cancel()
	}
}

package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
)

// A chain is writes of which each is sent when the one before is acknowledged, to a ring of places, over and over. So every state of
// the volume that is a prefix of their order can be told from any that is not, and which prefix it is.
type chain struct {
	r     *rig
	dev   chainDev
	from  int64         // the number of the last write before its first
	think time.Duration // after each acknowledgement
	acked atomic.Int64  // the number of the last write that was acknowledged
	done  chan struct{}

	// The writer's own until done is closed.
	at  []time.Time // when each was acknowledged, from number 1 on
	err error       // why it ended
}

type chainDev interface {
	WriteAt(p []byte, off int64) (int, error)
	Abort()
}

const (
	chainSlots = 48
	chainWrite = 64 << 10 // bytes of one write
	chainBytes = chainSlots * chainWrite
)

// chain begins to write to one node; it ends with the connection.
func (r *rig) chain(node string, think time.Duration) *chain {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	dev, err := nbdclient.Dial(ctx, r.URI(node))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.chainOn(dev, 0, think)
}

// chainOn begins with the write after a number.
func (r *rig) chainOn(dev chainDev, from int64, think time.Duration) *chain {
	c := &chain{r: r, dev: dev, from: from, think: think, done: make(chan struct{})}
	c.acked.Store(from)
	go c.write()
	r.t.Cleanup(func() { c.end() })
	return c
}

func (c *chain) write() {
	defer close(c.done)
	p := make([]byte, chainWrite)
	for seq := c.from + 1; ; seq++ {
		slot := (seq - 1) % chainSlots
		for b := range int64(chainWrite / StampSize) {
			Stamp(p[b*StampSize:][:StampSize], slot*chainWrite/StampSize+b, uint64(seq))
		}
		if _, c.err = c.dev.WriteAt(p, slot*chainWrite); c.err != nil {
			return
		}
		c.at = append(c.at, time.Now())
		c.acked.Store(seq)
		time.Sleep(c.think)
	}
}

// end closes the connection: what was not answered may be written or not.
func (c *chain) end() {
	c.dev.Abort()
	<-c.done
}

// await waits until so many writes are acknowledged.
func (c *chain) await(n int64) {
	c.r.t.Helper()
	deadline := time.Now().Add(patience)
	for c.acked.Load() < n {
		select {
		case <-c.done:
			c.r.t.Fatalf("the writer ended after %d of %d writes: %v", c.acked.Load(), n, c.err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.r.t.Fatalf("%d of %d writes were acknowledged within %v", c.acked.Load(), n, patience)
		}
	}
}

// stands waits until nothing is acknowledged for a while, and tells how many writes are.
func (c *chain) stands(ctx context.Context) int64 {
	c.r.t.Helper()
	last, since := c.acked.Load(), time.Now()
	for time.Since(since) < time.Second {
		select {
		case <-c.done:
			c.r.t.Fatalf("the writer ended: %v", c.err)
		case <-ctx.Done():
			c.r.t.Fatal("the writer goes on and on")
		case <-time.After(20 * time.Millisecond):
		}
		if n := c.acked.Load(); n != last {
			last, since = n, time.Now()
		}
	}
	return last
}

// prefix tells up to which write a volume has all and nothing after; an error if it is no prefix.
func prefix(dev io.ReaderAt) (int64, error) {
	blocks, err := stampsOf(dev)
	if err != nil {
		return 0, err
	}
	last := slices.Max(blocks)
	whole, err := isPrefix(blocks, last)
	if err != nil && last > 0 { // the last one may be written in part
		whole, err = isPrefix(blocks, last-1)
	}
	return whole, err
}

// stampsOf tells which write each block of the ring holds.
func stampsOf(dev io.ReaderAt) ([]int64, error) {
	p := make([]byte, chainBytes)
	if _, err := dev.ReadAt(p, 0); err != nil {
		return nil, err
	}
	blocks := make([]int64, chainBytes/StampSize)
	for b := range blocks {
		seq, err := readStamp(p[b*StampSize:][:StampSize], int64(b))
		if err != nil {
			return nil, fmt.Errorf("block %d holds %w", b, err)
		}
		blocks[b] = int64(seq)
	}
	return blocks, nil
}

// isPrefix holds what the blocks have against the first n writes; of write n+1 any part may be there.
func isPrefix(blocks []int64, n int64) (int64, error) {
	for b, seq := range blocks {
		slot := int64(b) * StampSize / chainWrite
		want := int64(0)
		if n > slot {
			want = n - (n-1-slot)%chainSlots
		}
		if seq != want && !(seq == n+1 && n%chainSlots == slot) {
			return 0, fmt.Errorf("block %d has write %d, and after the first %d writes it has %d", b, seq, n, want)
		}
	}
	return n, nil
}

// writtenOn reads a node's backing and tells up to which write all is there. Of later ones, some may be as well.
func (r *rig) writtenOn(node string) int64 {
	r.t.Helper()
	f, err := os.Open(r.Disk(node))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	blocks, err := stampsOf(f)
	if err != nil {
		r.t.Fatalf("on the disk of %s: %v", node, err)
	}
	n := int64(1) << 62
	for b, seq := range blocks {
		next := seq + chainSlots // the first write that this block lacks
		if seq == 0 {
			next = int64(b)*StampSize/chainWrite + 1
		}
		n = min(n, next-1)
	}
	return n
}

package replication

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
)

// openMarks is the new process's handle on the node's map of marks, which was made when the node was new.
func (n *labNode) openMarks() *marks.File {
	if n.l.conf.unmarked {
		return nil
	}
	b := marks.Binding{Cluster: meta.ID{15: 1}, Volume: meta.ID{15: 7}, Node: n.name, Size: n.l.conf.size,
		Incarnation: marks.Incarnation{Boot: meta.ID(n.boot), Attachment: "1", Start: n.process}}
	if n.table == nil {
		n.table = memdev.New(memdev.Config{Size: marks.Size(n.l.conf.size)})
		var peers []marks.Peer
		for _, r := range n.l.volume().Replicas {
			if r.Node != n.name {
				peers = append(peers, marks.Peer{Name: r.Node, Replica: n.l.volume().Stamp(r.Node)})
			}
		}
		if err := marks.Create(n.table, marks.New{Binding: b, Peers: peers}); err != nil {
			n.l.t.Fatal(err)
		}
	}
	n.table = n.table.Reopen()
	n.tableFaults = faultdev.New(n.table)
	f, err := marks.Open(n.tableFaults, b)
	if err != nil {
		n.l.t.Fatal(err)
	}
	return f
}

func (n *labNode) closeMarks() error {
	if n.marks == nil {
		return nil
	}
	n.tableFaults.Clear()
	if err := n.marks.Close(); err != nil && !errors.Is(err, marks.ErrClosed) && !errors.Is(err, blockdev.ErrClosed) && !errors.Is(err, errFault) {
		return err
	}
	return nil
}

// power cuts the power: what was not flushed is lost, or a part of it. start is to follow.
func (n *labNode) power(rng *rand.Rand) {
	n.cable.cut()
	n.super.kill()
	how := memdev.CrashOptions{Mode: memdev.LoseUnflushed}
	if rng != nil {
		how = memdev.CrashOptions{Mode: memdev.KeepRandom, Rand: rng}
	}
	_ = n.mem.Close()
	n.undo.kill()
	n.rescue.kill()
	n.faults.Clear() // what hangs finds the device gone
	n.undo.clear()
	data := n.mem.Clone(how)
	area := n.undo.clone(how)
	var table *memdev.Dev
	if n.marks != nil {
		_ = n.table.Close()
		table = n.table.Clone(how)
	}
	_ = n.halt()
	n.mem, n.table = data, table
	n.undo.set(func(u *labUndo) { u.dev = area })
	n.rescue.revive(&how)
	n.boot[5]++
	n.cable.mend()
}

// stored is whether the region of a byte is marked for a peer on stable storage, as a power cut at this moment leaves it.
func (n *labNode) stored(peer string, off int64) bool {
	b := marks.Binding{Cluster: meta.ID{15: 1}, Volume: meta.ID{15: 7}, Node: n.name, Size: n.l.conf.size,
		Incarnation: marks.Incarnation{Boot: meta.ID(n.boot), Attachment: "1", Start: n.process}}
	f, err := marks.Open(n.table.Clone(memdev.CrashOptions{}), b)
	if err != nil {
		n.l.t.Fatal(err)
	}
	defer f.Close()
	slot, ok := f.Lookup(marks.Peer{Name: peer})
	if !ok {
		n.l.t.Fatal(fmt.Errorf("%s has no slot for %s", n.name, peer))
	}
	return f.Slots()[slot].Everything || f.Marked(off/f.RegionSize())&marks.Of(slot) != 0
}

// tally counts what is read from and written to a backing, and keeps for what space was taken ahead.
type tally struct {
	read, written atomic.Int64

	mu        sync.Mutex
	allocated []blockdev.Range
}

func (t *tally) reset() {
	t.read.Store(0)
	t.written.Store(0)
}

// tallied is a device with a tally.
type tallied struct {
	*memdev.Dev
	t *tally
}

func (d tallied) ReadAt(p []byte, off int64) (int, error) {
	d.t.read.Add(int64(len(p)))
	return d.Dev.ReadAt(p, off)
}

func (d tallied) Allocate(r blockdev.Range) error {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	d.t.allocated = append(d.t.allocated, r)
	return nil
}

func (d tallied) WriteAt(p []byte, off int64) (int, error) {
	d.t.written.Add(int64(len(p)))
	return d.Dev.WriteAt(p, off)
}

func (d tallied) WriteFUA(p []byte, off int64) (int, error) {
	d.t.written.Add(int64(len(p)))
	return d.Dev.WriteFUA(p, off)
}

func (d tallied) WriteVAt(segments [][]byte, off int64) (int, error) {
	for _, s := range segments {
		d.t.written.Add(int64(len(s)))
	}
	return d.Dev.WriteVAt(segments, off)
}

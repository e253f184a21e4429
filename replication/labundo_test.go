package replication

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
)

// labPoint is what the lab says of when a replica left the set.
var labPoint = cluster.Point{Epoch: 1, AtMillis: 1764000000123}

// labUndo is where a node's undo area lies: in memory, with faults.
type labUndo struct {
	mu       sync.Mutex
	room     int64       // of an area; 0: 4*volumeSize
	dev      *memdev.Dev // nil: there is none
	faults   *faultdev.Dev
	dead     bool
	refuse   error // of Create
	stuck    error // of Remove
	made     int
	newFault func(*faultdev.Dev) // of an area that is made
}

func (u *labUndo) clear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.faults != nil {
		u.faults.Clear()
	}
}

// kill lets nothing more reach the area.
func (u *labUndo) kill() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dead = true
	if u.dev != nil {
		_ = u.dev.Close()
	}
}

func (u *labUndo) clone(how memdev.CrashOptions) *memdev.Dev {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.dev == nil {
		return nil
	}
	return u.dev.Clone(how)
}

// set changes what it does from now on.
func (u *labUndo) set(change func(*labUndo)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(u)
}

// areas is how many were made.
func (u *labUndo) areas() (n int) {
	u.set(func(u *labUndo) { n = u.made })
	return n
}

// there reports whether there is an area.
func (u *labUndo) there() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.dev != nil
}

type labUndoStore struct{ blockdev.Device }

func (s labUndoStore) Size() (int64, error) { return s.Device.Size(), nil }
func (s labUndoStore) Truncate(size int64) error {
	return s.Device.Zero(blockdev.Range{Off: size, Len: s.Device.Size() - size}, true)
}

// Open implements undo.Place.
func (u *labUndo) Open() (undo.Store, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dead = false
	if u.dev == nil {
		return nil, undo.ErrNone
	}
	u.dev = u.dev.Reopen()
	u.faults = faultdev.New(u.dev)
	return labUndoStore{u.faults}, nil
}

// Create implements undo.Place.
func (u *labUndo) Create(head []byte) (undo.Store, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := errors.Join(u.refuse, u.died()); err != nil {
		return nil, err
	}
	d := memdev.New(memdev.Config{Size: cmp.Or(u.room, 4*volumeSize)})
	if _, err := d.WriteFUA(head, 0); err != nil {
		return nil, err
	}
	u.dev, u.faults = d, faultdev.New(d)
	u.made++
	if u.newFault != nil {
		u.newFault(u.faults)
	}
	return labUndoStore{u.faults}, nil
}

// Remove implements undo.Place.
func (u *labUndo) Remove() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := errors.Join(u.stuck, u.died()); err != nil {
		return err
	}
	u.dev = nil
	return nil
}

func (u *labUndo) died() error {
	if u.dead {
		return fmt.Errorf("%w: the process is dead", errFault)
	}
	return nil
}

// openUndo is the new process's undo area, as node opens it.
func (n *labNode) openUndo(src undo.Source, super Superblock) *undo.Area {
	if !n.l.conf.undo {
		return nil
	}
	if !super.Inconsistent() {
		n.undo.set(func(u *labUndo) { u.dev = nil })
	}
	a, err := undo.Open(undo.Config{Place: &n.undo, Binding: undo.Binding{Cluster: meta.ID{15: 1}, Volume: meta.ID{15: 7}, Node: n.name,
		Size: n.l.conf.size, Attachment: "1", Epoch: uint64(super.Epoch())}}, src)
	if err != nil {
		n.l.t.Fatal(err)
	}
	return a
}

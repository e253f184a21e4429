package replication

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
	"hacluster/blockdev/rescue"
	"hacluster/blockdev/undo"
)

// labRescue is where a node's rescue images lie: in memory.
type labRescue struct {
	mu     sync.Mutex
	room   int64 // of an image; 0: as labUndo
	images map[string]*labUndo
	labels map[string][]byte
	ledger []byte
	dead   bool
	begins func() // an image is about to be made; nil: nobody looks
}

// IDs implements rescue.Room.
func (l *labRescue) IDs() (ids []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = false
	for id := range l.images {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// Make implements rescue.Room.
func (l *labRescue) Make(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errFault
	}
	if l.images == nil {
		l.images, l.labels = map[string]*labUndo{}, map[string][]byte{}
	}
	if l.begins != nil {
		l.begins()
	}
	l.images[id] = &labUndo{room: l.room}
	return nil
}

// Image implements rescue.Room.
func (l *labRescue) Image(id string) undo.Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &labImage{l.images[id]}
}

// labImage is the file of an image. It may be opened beside itself, to be read.
type labImage struct{ *labUndo }

// Open implements undo.Place.
func (i *labImage) Open() (undo.Store, error) {
	u := i.labUndo
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.dev == nil:
		return nil, undo.ErrNone
	case u.dead:
		return nil, errFault
	}
	return labImageStore{labUndoStore{u.dev}}, nil
}

// Create implements undo.Place.
func (i *labImage) Create(head []byte) (undo.Store, error) {
	s, err := i.labUndo.Create(head)
	if err != nil {
		return nil, err
	}
	return labImageStore{s.(labUndoStore)}, nil
}

// labImageStore outlives being closed: the device under it is that of the place.
type labImageStore struct{ labUndoStore }

func (s labImageStore) Close() error { return nil }

func (s labImageStore) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.labUndoStore.WriteAt(p, off)
	if errors.Is(err, blockdev.ErrRange) {
		err = fmt.Errorf("%w: %w", undo.ErrNoRoom, err)
	}
	return n, err
}

// Label implements rescue.Room.
func (l *labRescue) Label(id string) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.labels[id]; ok {
		return p, nil
	}
	return nil, rescue.ErrNone
}

// SetLabel implements rescue.Room.
func (l *labRescue) SetLabel(id string, p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errFault
	}
	l.labels[id] = p
	return nil
}

// Spoil implements rescue.Room.
func (l *labRescue) Spoil(id string, p []byte) error { return l.SetLabel(id, p) }

// Ledger implements rescue.Room.
func (l *labRescue) Ledger() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ledger == nil {
		return nil, rescue.ErrNone
	}
	return l.ledger, nil
}

// SetLedger implements rescue.Room.
func (l *labRescue) SetLedger(p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errFault
	}
	l.ledger = p
	return nil
}

// Closed implements rescue.Room.
func (l *labRescue) Closed(string) {}

// Remove implements rescue.Room.
func (l *labRescue) Remove(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errFault
	}
	delete(l.images, id)
	delete(l.labels, id)
	return nil
}

// kill lets nothing more reach the images.
func (l *labRescue) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, u := range l.images {
		u.kill()
	}
}

// revive is what the next process finds; how: what a power cut leaves, nil: there was none.
func (l *labRescue) revive(how *memdev.CrashOptions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range l.images {
		u.set(func(u *labUndo) {
			u.dead = false
			switch {
			case u.dev == nil:
			case how != nil:
				u.dev = u.dev.Clone(*how)
			default:
				u.dev = u.dev.Reopen()
			}
		})
	}
}

// openRescue is the new process's shelf, as node opens it.
func (n *labNode) openRescue(src undo.Source, super Superblock) *rescue.Shelf {
	if !n.l.conf.rescue {
		return nil
	}
	n.rescue.revive(nil)
	s, err := rescue.Open(rescue.Config{Room: &n.rescue, Patience: time.Hour, Binding: undo.Binding{Cluster: meta.ID{15: 1}, Volume: meta.ID{15: 7}, Node: n.name,
		Size: n.l.conf.size, Attachment: "1", Epoch: uint64(super.Epoch())}}, src, super.Inconsistent())
	if err != nil {
		n.l.t.Fatal(err)
	}
	return s
}

// exported is an image as the whole volume.
func (n *labNode) exported(id string, partial bool) []byte {
	n.l.t.Helper()
	out := make([]byte, n.l.conf.size)
	for c := (rescue.Cursor{}); ; {
		p, err := n.get().ReadRescue(id, c, partial)
		if err != nil {
			n.l.t.Fatal(err)
		}
		for _, part := range p.Parts {
			clear(out[part.Off : part.Off+part.Len])
			copy(out[part.Off:part.Off+part.Len], part.Data)
		}
		if p.End {
			return out
		}
		c = p.Next
	}
}

// lacks is how many blocks of what an image has are not those of want, among those in which want and other differ.
func (n *labNode) lacks(id string, want, other []byte) (blocks int) {
	n.l.t.Helper()
	got := n.exported(id, true)
	for at := 0; at < len(want); at += blockdev.BlockSize {
		to := at + blockdev.BlockSize
		if !bytes.Equal(want[at:to], other[at:to]) && !bytes.Equal(got[at:to], want[at:to]) {
			blocks++
		}
	}
	return blocks
}

// grow gives the images more room.
func (l *labRescue) grow(room int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room = room
	for _, u := range l.images {
		u.set(func(u *labUndo) {
			old := u.dev
			u.dev = memdev.New(memdev.Config{Size: room})
			p := make([]byte, old.Size())
			_, err := old.ReadAt(p, 0)
			if err == nil {
				_, err = u.dev.WriteFUA(p, 0)
			}
			if err != nil {
				panic(err)
			}
		})
	}
}

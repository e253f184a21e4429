//go:build failpoints

package replication

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/rescue"
	"hacluster/replication/standby"
)

// What the lost primary held and the forced standby did not is in rescue images of its node before anything overwrites it
// (R19), whichever moment the power goes at, and stays there until a person removes it.

// claim is what must be in the images of a node: it was lost as primary, and the other promoted by force.
type claim struct {
	node  *labNode
	point []byte // what the other was promoted with

	mu   sync.Mutex
	held []byte // what the node held when its first image was begun; nil: none was

	// In async, where the two may hold the same: what the node held, and what was acknowledged, when the other began to serve.
	was   []byte
	acked [cutBlocks]uint64
}

// lost notes that all of a node's writes since point are to be kept aside.
func (r *cutRun) lost(n *labNode, point []byte) {
	c := &claim{node: n, point: point}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims = append(slices.DeleteFunc(r.claims, func(c *claim) bool { return c.node == n }), c)
	c.await()
}

// await has the claim see what the node holds when its first image is begun.
func (c *claim) await() {
	n := c.node
	n.rescue.set(func(l *labRescue) {
		l.begins = func() {
			held := make([]byte, cutVolume)
			if _, err := n.mem.ReadAt(held, 0); err != nil {
				return // its power is off
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.held == nil {
				c.held = held
			}
		}
	})
}

func (c *claim) before() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// givenUp: a person had what a node holds overwritten.
func (r *cutRun) givenUp(n *labNode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims = slices.DeleteFunc(r.claims, func(c *claim) bool { return c.node == n })
}

// aside looks for all that is claimed in the images.
func (r *cutRun) aside() {
	r.t.Helper()
	r.mu.Lock()
	claims := slices.Clone(r.claims)
	r.mu.Unlock()
	for _, c := range claims {
		v := r.volume()
		if v.IsHeld(c.node.name) || !v.IsMember(c.node.name) {
			continue // its resync has not ended
		}
		var images [][]byte
		for _, i := range c.node.get().RescueImages() {
			if !i.Closed.IsZero() {
				images = append(images, c.node.exported(i.ID, true))
			}
		}
		held := c.before()
		if held == nil && c.was != nil && !c.overwritten() {
			continue
		}
		for at := 0; at < cutVolume; at += cutVolume / cutBlocks {
			lacks := func(p []byte) bool {
				return !bytes.Equal(p[at:at+blockdev.BlockSize], held[at:at+blockdev.BlockSize])
			}
			switch {
			case held == nil:
				r.t.Fatalf("%s is a member again; no image of what it held as primary was begun", c.node.name)
			case !lacks(c.point), slices.ContainsFunc(images, func(p []byte) bool { return !lacks(p) }):
				continue
			}
			r.t.Fatalf("the block at %d of %s, which the forced replica lacks, is in none of its %d images %+v; cut at %v", at, c.node.name,
				len(images), c.node.get().RescueImages(), r.point)
		}
		r.images += len(images)
	}
}

// deletes has a person remove the images, when nobody needs them any more. One that was being removed when the power went may
// be there or not.
func (r *cutRun) deletes() {
	r.mu.Lock()
	claims := slices.Clone(r.claims)
	r.mu.Unlock()
	for _, c := range claims {
		for _, i := range c.node.get().RescueImages() {
			if i.Closed.IsZero() {
				continue
			}
			r.givenUp(c.node)
			err := c.node.get().RemoveRescue(i.ID, "a person")
			if err == nil && slices.ContainsFunc(c.node.get().RescueImages(), func(k rescue.Info) bool { return k.ID == i.ID }) {
				r.t.Fatalf("image %s of %s was removed, and is there", i.ID, c.node.name)
			}
		}
	}
}

// awaits reports whether the resync of a held node waits for a person.
func (r *cutRun) awaits(n *labNode) bool { return n.get().keep() == standby.Await }

// isRescue: the point is in the making or the end of an image.
func (r *cutRun) isRescue() bool {
	return r.point >= failpoint.RescueMake && r.point <= failpoint.RescueRemoved
}

func (l *labRescue) set(change func(*labRescue)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

// cut is what a power cut at this moment leaves; restore gives it to the next process.
func (l *labRescue) cut(how memdev.CrashOptions) (restore func()) {
	l.kill()
	l.mu.Lock()
	defer l.mu.Unlock()
	labels, images, ledger := map[string][]byte{}, map[string]*labUndo{}, l.ledger
	maps.Copy(labels, l.labels)
	for _, id := range slices.Sorted(maps.Keys(l.images)) {
		images[id] = &labUndo{room: l.room, dev: l.images[id].clone(how)}
	}
	return func() { l.set(func(l *labRescue) { l.labels, l.images, l.ledger = labels, images, ledger }) }
}

// Package order keeps overlapping operations in the order in which they were admitted (R33): a later one may start on
// a backing only after every earlier one that it overlaps has returned there. It is pure; the primary and the standby
// use the same code, so the order is the same on every replica.
package order

import "hacluster/blockdev"

// Item is one operation in a Queue. Embed it. The zero Item with a Range is ready for Admit.
type Item struct {
	Range blockdev.Range
	// Barrier makes the item wait for everything earlier, whatever its range; nothing waits for a barrier that is no fence.
	Barrier bool
	// Fence makes everything later wait for the item, whatever its range.
	Fence bool

	slot    int     // index in Queue.active, while queued
	waits   int     // earlier items that have not returned yet
	blocked []*Item // later items that wait for this one
	// Owner leads back from the item to what it is part of.
	Owner any
}

// Queue holds what was admitted and has not returned. The zero Queue is empty and usable. Not safe for concurrent use.
//
// Cost: Admit compares with every item in the queue, which its owner bounds (R28); at 32 in flight that is well under
// a microsecond and needs no allocation.
type Queue struct{ active []*Item }

// Len is the number of items that have not returned.
func (q *Queue) Len() int { return len(q.active) }

// Holds reports whether an item that overlaps r has not returned.
func (q *Queue) Holds(r blockdev.Range) bool {
	for _, o := range q.active {
		if !o.Barrier && o.Range.Overlaps(r) {
			return true
		}
	}
	return false
}

// Admit puts an item behind all earlier ones and reports whether it may start now.
func (q *Queue) Admit(it *Item) (ready bool) {
	it.waits, it.blocked = 0, it.blocked[:0]
	for _, o := range q.active {
		if it.Barrier || o.Fence || !o.Barrier && o.Range.Overlaps(it.Range) {
			o.blocked = append(o.blocked, it)
			it.waits++
		}
	}
	it.slot = len(q.active)
	q.active = append(q.active, it)
	return it.waits == 0
}

// Return takes an item out and appends to ready those that may start now.
func (q *Queue) Return(it *Item, ready []*Item) []*Item {
	last := len(q.active) - 1
	moved := q.active[last]
	q.active[it.slot], moved.slot = moved, it.slot
	q.active[last] = nil
	q.active = q.active[:last]
	for i, b := range it.blocked {
		it.blocked[i] = nil
		if b.waits--; b.waits == 0 {
			ready = append(ready, b)
		}
	}
	it.blocked = it.blocked[:0]
	return ready
}

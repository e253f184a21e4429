package maps

import "hacluster/blockdev/bitmap"

// Recent knows which regions were in use lately: in the newest rounds of clearing, of which one ends every few seconds. How
// many rounds count is learned from what it cost to forget: a region that is marked again soon after it was given back
// waited for a flush for nothing. So a load that comes back to its regions keeps them, and one that goes on to others, as a
// copy from front to back, leaves little behind that would be compared after a crash. A round in which nothing at all was
// written ends the memory: an idle volume keeps no marks.
type Recent struct {
	rounds [maxRounds]*bitmap.Bitmap // in use; the one under way first
	count  int                       // of rounds, the one under way included, that keep a region
	gone   *bitmap.Bitmap            // what was given back not long ago
	age    int                       // rounds since gone was emptied
	back   int                       // how many of gone were marked again in this round
	calm   int                       // rounds in a row without
	sum    *bitmap.Bitmap            // for kept and leave to work with
}

const (
	maxRounds = 16
	// tooMany regions that come back in one round make it remember for twice as long.
	tooMany = 16
	// calmRounds without any make it remember for half as long.
	calmRounds = 2 * maxRounds
)

func newRecent(regions int64) Recent {
	c := Recent{count: 1, gone: bitmap.New(regions), sum: bitmap.New(regions)}
	for i := range c.rounds {
		c.rounds[i] = bitmap.New(regions)
	}
	return c
}

func (c *Recent) use(from, to int64) {
	c.rounds[0].Set(from, to)
	if c.gone.Count() > 0 && c.gone.Any(from, to) {
		c.back++
		c.gone.Clear(from, to)
	}
}

// last is what was in use in the round that ends.
func (c *Recent) last() *bitmap.Bitmap { return c.rounds[0] }

// kept is what was in use lately, until the next call; it is asked for once a round, before turn.
func (c *Recent) kept() *bitmap.Bitmap {
	c.learn()
	c.sum.Empty()
	for i := range c.count {
		if c.rounds[0].Count() > 0 {
			c.sum.Or(c.rounds[i])
		}
	}
	return c.sum
}

func (c *Recent) learn() {
	switch {
	case c.back >= tooMany:
		c.count, c.calm = min(2*c.count, maxRounds), 0
	case c.back > 0:
		c.calm = 0
	default:
		c.calm++
	}
	if c.calm >= calmRounds {
		c.count, c.calm = max(c.count/2, 1), 0
	}
	c.back = 0
}

// turn begins a round.
func (c *Recent) turn() {
	oldest := c.rounds[maxRounds-1]
	copy(c.rounds[1:], c.rounds[:])
	c.rounds[0] = oldest
	oldest.Empty()
	if c.age++; c.age >= maxRounds {
		c.gone.Empty()
		c.age = 0
	}
}

// leave tells what is given back. What was marked ahead, and not written since, does not come back when it is.
func (c *Recent) leave(regions *bitmap.Bitmap) {
	c.sum.Empty()
	for _, r := range c.rounds {
		c.sum.Or(r)
	}
	c.sum.And(regions)
	c.gone.Or(c.sum)
}

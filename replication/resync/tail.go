package resync

import (
	"math"
	"math/bits"
	"time"
)

// Tail counts how long operations took, finely enough to tell by how much the slowest of them became slower: a bucket's bounds
// are at most an eighth apart. Counts wrap around; only differences mean anything.
type Tail [TailBuckets]uint32

// The buckets of a Tail: below 8.2 µs, from there on eight for each doubling, up to 68 s.
const (
	TailBuckets   = tailOctaves * tailSteps
	tailOctaves   = 23
	tailSteps     = 8
	tailFirstBits = 13
)

// TailBucket is the bucket of a duration.
func TailBucket(d time.Duration) int {
	n := uint64(max(d, 1<<tailFirstBits))
	octave := bits.Len64(n) - 1
	return min((octave-tailFirstBits)*tailSteps+int(n>>(octave-3)&(tailSteps-1)), TailBuckets-1)
}

// since is what was counted since old was read.
func (t *Tail) since(old *Tail) (d Tail) {
	for i := range t {
		d[i] = t[i] - old[i]
	}
	return d
}

func (t *Tail) add(o *Tail) {
	for i := range t {
		t[i] += o[i]
	}
}

func (t *Tail) count() (n int) {
	for _, k := range t {
		n += int(k)
	}
	return n
}

// beyond is what all but so many of the slowest took at most: the upper bound of a bucket, in ns.
func (t *Tail) beyond(slowest int) float64 {
	i := TailBuckets - 1
	for ; i > 0 && int(t[i]) <= slowest; i-- {
		slowest -= int(t[i])
	}
	octave, step := i/tailSteps, i%tailSteps
	return float64(uint64(tailSteps+step+1) << (tailFirstBits - 3 + octave))
}

// slower is by how much the slow ones of beside took longer than those of calm: at the hundredth slowest of a hundred, and
// where there are too few to tell from one that a disk held up for whatever reason, further below. At the least, it compares
// medians. How many are so slow is chance, within about the root of their number: how counts tells who has that against him.
func slower(beside, calm *Tail, how certainty) float64 {
	n, m := float64(beside.count()), float64(calm.count())
	part := min(max(0.01, fewestSlow/min(n, m)), 0.5)
	at := func(n float64, chance certainty) int {
		return int(min(max(part*n+float64(chance)*math.Sqrt(part*n), 0), n/2))
	}
	return beside.beyond(at(n, how)) / calm.beyond(at(m, -how))
}

// certainty is how many times the root of their number may be chance.
type certainty float64

const (
	perhaps certainty = 0
	surely  certainty = 1.5
)

// fewestSlow is how many operations have to be slow before that counts.
const fewestSlow = 5

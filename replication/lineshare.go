package replication

import (
	"time"

	"hacluster/replication/link"
	"hacluster/replication/primary"
)

// lineShare is what the resync of one replica takes of the line to it, which other volumes use too. A chunk is charged when it
// is asked for, by as much as was copied of those before it: all that differs is sent when its digests are known, and by then it
// would be too late to wait. What it was too much or too little is settled then.
type lineShare struct {
	slow slowLine
	part float64 // of what is compared, that was copied of late
}

// leastPart is what is charged at least: a chunk of which nothing differs costs the line its digests.
const leastPart = 1.0 / 64

// slowLine tells the line that is to be spared, which may be another one later: a link.Sender.
type slowLine interface{ Slow() *link.Line }

func newLineShare(s slowLine) lineShare { return lineShare{slow: s, part: 1} }

// charge takes a chunk's share of the line.
func (s *lineShare) charge(bytes int64) int64 {
	n := int64(s.part * float64(bytes))
	s.slow.Slow().Copied(n)
	return n
}

// settle tells what was copied of a chunk that was charged so much.
func (s *lineShare) settle(bytes, charged int64, copies []*primary.Op) {
	copied := int64(0)
	for _, o := range copies {
		copied += o.Range.Len
	}
	s.slow.Slow().Copied(copied - charged)
	s.part = max(s.part*3/4+float64(copied)/float64(bytes)/4, leastPart)
}

// rest is how long no further chunk is to be taken, and how large one may be; 0: it may be now.
func (s *lineShare) rest() (time.Duration, int64) {
	rest, most := s.slow.Slow().RestOfResync()
	return min(rest, time.Second), most
}

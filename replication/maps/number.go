package maps

import "fmt"

// Number counts the clearings of what two replicas keep marked for each other on stable storage. Clearing n goes
//
//	primary          asks those who take part to promise n
//	each standby     stores Promised = n, then answers
//	primary          has every answer: stores Promised = Settled = n, then clears; tells them
//	each standby     stores Settled = n, then clears
//
// So whoever has cleared by n knows that all others had stored that they promised it. A map that is restored to what it
// was before its promise shows it by the number; one that is restored to what it was after it has every mark up to
// there, and of what was written later no mark was cleared by n on the others (Regions).
type Number struct{ Promised, Settled uint64 }

// Judge compares what two replicas have stored about each other. An error: one of them has gone back, it was restored or
// cloned, and all blocks may differ between them (R16). Both come to the same result.
func Judge(a, b Number) error {
	lower := func(x, y Number) error {
		return fmt.Errorf("its map is older than it was: it had promised clearing %d and knows of %d only: all blocks may differ", y.Settled, x.Promised)
	}
	switch {
	case a.Promised < b.Settled:
		return lower(a, b)
	case b.Promised < a.Settled:
		return lower(b, a)
	}
	return nil
}

// Next is the number of a new clearing among replicas that have stored these.
func Next(stored ...Number) uint64 {
	n := uint64(0)
	for _, s := range stored {
		n = max(n, s.Promised)
	}
	return n + 1
}

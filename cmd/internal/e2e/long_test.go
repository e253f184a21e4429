package e2e

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// inLong reports whether everything is run, as make test-long does: what other tests cover as well, and every variant of each case.
func inLong() bool { return os.Getenv("HACLUSTER_LONG") != "" }

// long skips a test outside of make test-long. There its case is covered by what is named.
func long(t *testing.T, covered string) {
	t.Helper()
	if !inLong() {
		t.Skipf("make test-long runs this; in make test the case is covered by %s", covered)
	}
}

// times is how often something is repeated where once tells most.
func times(short, long int) int {
	if inLong() {
		return long
	}
	return short
}

// some draws n of the variants of a case; make test-long takes all. Which ones is logged: they are others each time.
func some[V any](t *testing.T, n int, all ...V) []V {
	t.Helper()
	if inLong() || n >= len(all) {
		return all
	}
	drawn := slices.Clone(all)
	rand.Shuffle(len(drawn), func(i, k int) { drawn[i], drawn[k] = drawn[k], drawn[i] })
	t.Logf("of %d variants: %v", len(all), drawn[:n])
	return drawn[:n]
}

// sides are whom the i-th kind of a harm hits: the primary (false) and the standby (true); outside of make test-long one of them in turn.
func sides(i int) (standby []bool) {
	if inLong() {
		return []bool{false, true}
	}
	return []bool{i%2 == 1}
}

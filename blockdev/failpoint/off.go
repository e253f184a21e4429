//go:build !failpoints

package failpoint

// Enabled tells whether this program was built with -tags failpoints.
const Enabled = false

// Hit does nothing.
func Hit(Point) {}

// HitOne does nothing.
func HitOne(bool, Point, Point) {}

// Often is how often something rare happens: as usual, or as often as crashing there demands.
func Often[T any](usual, _ T) T { return usual }

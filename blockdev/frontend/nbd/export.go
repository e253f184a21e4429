package nbd

import (
	"context"
	"errors"
	"fmt"

	"hacluster/blockdev"
)

// Export is one volume as this node offers it now: one tenure of one primary. All methods may be called concurrently.
type Export interface {
	// Size is the volume's length in bytes. A connection keeps the size that it was opened with.
	Size() int64
	// ReadOnly: writes, trims and zeroings are refused with EPERM.
	ReadOnly() bool
	// Submit starts one operation. Request.Done reports its end, from any goroutine, perhaps before Submit returns.
	// The order of Submit calls is the order of admission (R33).
	Submit(*blockdev.Request)
	// Gate returns nil when this node may admit and answer at this very moment. While it may not, Gate blocks (I/O is
	// suspended) until it may, or ctx ends. An error means: close the connection without another answer.
	Gate(ctx context.Context) error
	// Gone is closed when the role moved. What was admitted stays with the volume, which need not report its end.
	Gone() <-chan struct{}
	// Extents reports the ranges of r, in order and without gaps, as blockdev.Mapper does.
	Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error
}

// TryGater is implemented by exports that can say without blocking whether Gate would return nil at once. With it a
// lone reply is written by the goroutine that calls Done, which saves a change of goroutine.
type TryGater interface {
	TryGate() bool
}

// Gatherer is implemented by exports that send the effects of several requests to others at once. A request that is
// submitted with More waits for company; Push sends on what waits, and is called before the submitter waits itself, whatever
// it submitted after that request.
type Gatherer interface {
	Push()
}

// FastZeroer is implemented by exports that know whether zeroing r is much faster than writing it. Without it a request
// with FAST_ZERO is answered ENOTSUP, at once.
type FastZeroer interface {
	FastZero(r blockdev.Range, unmap bool) bool
}

// Describer is implemented by exports that have something to say of themselves, for who asks for NBD_INFO_DESCRIPTION: a line of
// text, at most nbdproto.MaxName bytes of which are sent.
type Describer interface {
	Describe() string
}

// Exports tells what this node serves. All methods may be called concurrently.
type Exports interface {
	// Lookup finds an export by name. A *NotPrimaryError and ErrUnknownExport become answers of their own.
	Lookup(name string) (Export, error)
	// Names lists what this node serves now, for the LIST option. Volumes of other nodes are better left out: tools
	// that list exports fail at the first one which they may not open.
	Names() []string
}

// ErrUnknownExport: no volume has this name.
var ErrUnknownExport = errors.New("unknown export")

// NotPrimaryError says that this node may not serve the volume, and who does.
type NotPrimaryError struct {
	Volume  string
	Primary string // empty: nobody does at this moment
}

func (e *NotPrimaryError) Error() string {
	if e.Primary == "" {
		return fmt.Sprintf("volume %q has no primary at this moment: try again later", e.Volume)
	}
	return fmt.Sprintf("this node is not primary of volume %q: connect to node %q", e.Volume, e.Primary)
}

// Is makes errors.Is(err, blockdev.ErrNotPrimary) true.
func (e *NotPrimaryError) Is(target error) bool { return target == blockdev.ErrNotPrimary }

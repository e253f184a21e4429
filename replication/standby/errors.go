package standby

import (
	"errors"
	"fmt"
)

// ErrStale: the stream was superseded, closed, or its epoch ended.
var ErrStale = errors.New("the stream is not the newest of the epoch: nothing more is taken from it")

// GapError: an entry is missing before the one that came; nothing is applied around a gap.
type GapError struct{ Want, Got uint64 }

func (e *GapError) Error() string {
	return fmt.Sprintf("entry %d came, %d is the next: something was lost between", e.Got, e.Want)
}

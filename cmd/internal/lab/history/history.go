// Package history judges what clients of a volume saw: each block is a register with one writer and any number of
// readers, and there must be an order of all operations, in agreement with real time, that explains every answer. A
// second judgement is about the servers: the answers must be explained by the known sequence of primaries, one at any
// instant.
//
// All times are CLOCK_BOOTTIME of the one machine that everything runs on. The package takes values and gives values.
package history

import (
	"fmt"
	"time"
)

// Kind is what an operation did.
type Kind string

// The kinds of operations.
const (
	Read  Kind = "read"
	Write Kind = "write"
)

// Op is one operation on one block. What has Unknown set was never answered, or by an error: a write may have taken
// effect at any time since it was sent, or never.
type Op struct {
	Who      string        `json:"who"` // the worker: one operation at a time
	Kind     Kind          `json:"kind"`
	Block    int64         `json:"block"`
	Seq      uint64        `json:"seq"` // the write's number, or that of the write that was read; 0: zeroes
	Server   string        `json:"server"`
	Sent     time.Duration `json:"sent"`
	Answered time.Duration `json:"answered"`
	Unknown  bool          `json:"unknown"`
}

func (o Op) String() string {
	until := fmt.Sprintf("%.6f", o.Answered.Seconds())
	if o.Unknown {
		until = "never answered"
	}
	return fmt.Sprintf("%s by %s of block %d, number %d, at %s, [%.6f, %s]", o.Kind, o.Who, o.Block, o.Seq, o.Server, o.Sent.Seconds(), until)
}

// Clock reads CLOCK_BOOTTIME.
func Clock() time.Duration { return boottime() }

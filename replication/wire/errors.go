package wire

import (
	"errors"
	"fmt"
)

// What receivers decide on. Every error of a decoder is one of these; none of the message has taken effect.
var (
	// ErrMalformed: the bytes are not a message of this protocol.
	ErrMalformed = errors.New("malformed message")
	// ErrLimit: a count, length or range exceeds its limit (R28).
	ErrLimit = errors.New("message exceeds a limit")
	// ErrChecksum: bytes changed between where their checksum was made and here (R21).
	ErrChecksum = errors.New("checksum mismatch")
	// ErrVersion: the other side speaks no version that this side speaks.
	ErrVersion = errors.New("no common protocol version")
	// ErrOrder: a sequence number is not the one that must follow.
	ErrOrder = errors.New("sequence broken")
)

// VersionError says both sides' versions.
type VersionError struct {
	Min, Max uint16 // what the other side speaks
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: the peer speaks %d to %d, this node %d to %d; upgrade the older of the two",
		ErrVersion, e.Min, e.Max, VersionMin, Version)
}

// Is makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// OrderError says which sequence number was due and which came. Got > Want is a gap, Got < Want a repetition.
type OrderError struct {
	Want, Got uint64
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("%v: frame %d came where %d was due", ErrOrder, e.Got, e.Want)
}

// Is makes errors.Is(err, ErrOrder) true.
func (e *OrderError) Is(target error) bool { return target == ErrOrder }

// ChecksumError says which frame's payload did not match.
type ChecksumError struct {
	Seq       uint64
	Want, Got uint32
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%v: payload of frame %d sums to %#08x, was sent with %#08x", ErrChecksum, e.Seq, e.Got, e.Want)
}

// Is makes errors.Is(err, ErrChecksum) true.
func (e *ChecksumError) Is(target error) bool { return target == ErrChecksum }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func overLimit(what string, got, limit int64) error {
	return fmt.Errorf("%w: %s is %d, at most %d", ErrLimit, what, got, limit)
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("frame %d of the message (%v, sequence %d): %v", e.Index+1, e.Kind, e.Seq, e.Err)
}

func (e *FrameError) Unwrap() error { return e.Err }

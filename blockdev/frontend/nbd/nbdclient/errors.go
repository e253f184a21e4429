package nbdclient

import (
	"errors"
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// ErrConnectionLost: the connection died before the request was answered. Whether it took effect is unknown.
var ErrConnectionLost = errors.New("connection lost, the outcome is unknown")

// ExportError is a server's refusal of an export.
type ExportError struct {
	Export  string
	Rep     nbdproto.Rep
	Message string
}

func (e *ExportError) Error() string {
	return fmt.Sprintf("export %q refused (answer %#x): %s", e.Export, uint32(e.Rep), e.Message)
}

// Is makes errors.Is(err, blockdev.ErrNotPrimary) true for what a standby answers.
func (e *ExportError) Is(target error) bool {
	return target == blockdev.ErrNotPrimary && e.Rep == nbdproto.RepErrPolicy
}

// OpError is a server's answer that an operation was not done.
type OpError struct {
	Cmd   nbdproto.Cmd
	Range blockdev.Range
	Errno nbdproto.Errno
}

func (e *OpError) Error() string {
	return fmt.Sprintf("nbd command %d on %v: %v", e.Cmd, e.Range, e.Errno)
}

// Unwrap is the error number.
func (e *OpError) Unwrap() error { return e.Errno }

// Is translates the numbers that have a meaning of their own here.
func (e *OpError) Is(target error) bool {
	return target == blockdev.ErrNoSpace && e.Errno == nbdproto.ENOSPC
}

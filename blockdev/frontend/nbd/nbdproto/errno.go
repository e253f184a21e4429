package nbdproto

import "fmt"

// Errno is an error number as it travels; the values are Linux's.
type Errno uint32

// The numbers that the protocol allows.
const (
	OK        Errno = 0
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

var errnoText = map[Errno]string{
	OK: "success", EPERM: "operation not permitted", EIO: "input/output error", ENOMEM: "out of memory",
	EINVAL: "invalid argument", ENOSPC: "no space left on device", EOVERFLOW: "value too large",
	ENOTSUP: "operation not supported", ESHUTDOWN: "server is shutting down",
}

func (e Errno) Error() string {
	if t, ok := errnoText[e]; ok {
		return t
	}
	return fmt.Sprintf("error number %d", uint32(e))
}

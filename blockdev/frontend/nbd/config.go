package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// Config sets the limits of a Server (R28). The zero value of each field means its default.
type Config struct {
	// MaxConnections, default 256: when all have chosen an export, further ones are accepted and closed at once; as
	// long as some have not, one of these is closed instead (see admit). A connection whose client has left counts
	// until the operations that it started have ended.
	MaxConnections int
	// HandshakeTimeout, default 10 s: a client that is not in the transmission phase by then is closed.
	HandshakeTimeout time.Duration
	// MaxOptions, default 1024, is how many options a client may send; then the connection is closed.
	MaxOptions int
	// MaxOptionLen, default 64 KiB, is the longest option taken; a longer one is answered TOO_BIG and the connection
	// closed, without reading it.
	MaxOptionLen int
	// MaxRequestsInFlight, default 128, is per connection: at the limit no further request is read until one has been
	// answered. Larger serves deeper queues and costs memory.
	MaxRequestsInFlight int
	// MaxBytesInFlight, default 512 MiB, caps the data of all requests of all connections. At the limit no further
	// data is read from sockets, but each connection may always have one request of up to 256 KiB, and one request in
	// the server any, so that nobody waits for ever.
	MaxBytesInFlight int64
	// MaxConnBytesInFlight, default 64 MiB, caps one connection's part of MaxBytesInFlight, so that a client which
	// does not read its answers leaves memory to the others. One request is always let through.
	MaxConnBytesInFlight int64
	// MaxPayload, default and at most 32 MiB: a longer read is answered EINVAL, a longer write closes the connection.
	MaxPayload int
	// SlowReaderTimeout, default 30 s: a client that has answers waiting and takes no byte for this long is closed.
	SlowReaderTimeout time.Duration
	// StallTimeout, default 30 s: a client that stops in the middle of a request is closed. Between requests it may
	// be silent for ever; tcp keepalive finds those whose machine is gone.
	StallTimeout time.Duration
	// ReadBuffer, default 256 KiB, is the size of each connection's receive buffer.
	ReadBuffer int
	// TLS, default nil: with it, STARTTLS is offered; without, it is refused. Connections to a tcp address that is not
	// a loopback one must use it before anything else.
	TLS *tls.Config
	// Log, default slog.Default().
	Log *slog.Logger
}

// connShare is what a connection without other data in flight may take although MaxBytesInFlight is reached.
const connShare = 256 << 10

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	def(&c.MaxConnections, 256)
	def(&c.HandshakeTimeout, 10*time.Second)
	def(&c.MaxOptions, 1024)
	def(&c.MaxOptionLen, 64<<10)
	def(&c.MaxRequestsInFlight, 128)
	def(&c.MaxBytesInFlight, 512<<20)
	def(&c.MaxConnBytesInFlight, 64<<20)
	def(&c.MaxPayload, nbdproto.MaxPayload)
	def(&c.SlowReaderTimeout, 30*time.Second)
	def(&c.StallTimeout, 30*time.Second)
	def(&c.ReadBuffer, 256<<10)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Validate reports every field whose value cannot work, zero meaning the default.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	atLeast := func(name string, v, low int64) {
		if v < low {
			errs = append(errs, fmt.Errorf("nbd: %s is %d, must be at least %d", name, v, low))
		}
	}
	atLeast("MaxConnections", int64(c.MaxConnections), 1)
	atLeast("HandshakeTimeout", int64(c.HandshakeTimeout), int64(time.Millisecond))
	atLeast("MaxOptions", int64(c.MaxOptions), 1)
	atLeast("MaxOptionLen", int64(c.MaxOptionLen), nbdproto.MaxName+4)
	atLeast("MaxRequestsInFlight", int64(c.MaxRequestsInFlight), 1)
	atLeast("MaxPayload", int64(c.MaxPayload), 4096)
	atLeast("MaxBytesInFlight", c.MaxBytesInFlight, connShare)
	atLeast("MaxConnBytesInFlight", c.MaxConnBytesInFlight, connShare)
	atLeast("SlowReaderTimeout", int64(c.SlowReaderTimeout), int64(time.Millisecond))
	atLeast("StallTimeout", int64(c.StallTimeout), int64(time.Millisecond))
	atLeast("ReadBuffer", int64(c.ReadBuffer), minBuffer)
	if c.MaxPayload > nbdproto.MaxPayload {
		errs = append(errs, fmt.Errorf("nbd: MaxPayload is %d, must be at most %d", c.MaxPayload, nbdproto.MaxPayload))
	}
	return errors.Join(errs...)
}

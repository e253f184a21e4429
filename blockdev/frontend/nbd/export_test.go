package nbd

import (
	"context"
	"net"
)

// ServeConn serves one connection in the caller's goroutine.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) { newConn(s, nc).serve(ctx) }

package link

import "net"

// Conn is the connection under the stream: whoever accepted it may know who is at the other end. It is not to be read,
// written or closed.
func (s *Session) Conn() net.Conn { return s.under }

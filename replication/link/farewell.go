package link

import (
	"io"
	"net"
	"time"

	"hacluster/replication/wire"
)

// lingerTime is how long a standby that ends a stream waits for the primary to end it too.
const lingerTime = time.Second

// socket is the connection below TLS, or conn itself.
func socket(conn net.Conn) net.Conn {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return conn
}

// hangUp tells the peer that nothing follows. What was written before still arrives.
func hangUp(conn net.Conn) {
	if c, ok := socket(conn).(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
		return
	}
	_ = conn.Close()
}

// farewell ends the connection after its handler has returned with err. A connection closed with data unread is reset,
// and a reset takes with it what the primary has not read yet: the refusal, perhaps, for which it has to drop this
// standby (R21, R23). So what the primary still sends is read, for a while, until it hangs up as well.
func (s *Session) farewell(err error) {
	s.cancel()
	_ = s.conn.SetDeadline(time.Now().Add(lingerTime))
	if err != nil && !s.closed.Load() {
		_, _ = s.conn.Write(goodbyeMessage(err))
	}
	hangUp(s.conn)
	_, _ = io.Copy(io.Discard, onlyReader{socket(s.conn)})
	_ = s.conn.Close()
}

// onlyReader keeps io.Copy from asking the socket for other ways to copy.
type onlyReader struct{ io.Reader }

func goodbyeMessage(err error) []byte {
	text := err.Error()
	text = text[:min(len(text), wire.MaxText)]
	msg := append(make([]byte, prefixSize), text...)
	putPrefix(msg, goodbye, len(text))
	return msg
}

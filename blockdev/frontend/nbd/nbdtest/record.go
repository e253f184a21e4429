package nbdtest

import (
	"bytes"
	"io"
	"net"
	"sync"
)

// Recorder is a proxy in front of a server that keeps what clients say.
type Recorder struct {
	l      net.Listener
	target net.Addr
	wg     sync.WaitGroup

	mu    sync.Mutex
	said  []*bytes.Buffer
	conns []net.Conn
}

// Record listens on l and passes everything on to target.
func Record(l net.Listener, target net.Addr) *Recorder {
	r := &Recorder{l: l, target: target}
	r.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(nc) })
		}
	})
	return r
}

func (r *Recorder) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial(r.target.Network(), r.target.String())
	if err != nil {
		return
	}
	defer server.Close()
	said := new(bytes.Buffer)
	r.mu.Lock()
	r.said = append(r.said, said)
	r.conns = append(r.conns, client, server)
	r.mu.Unlock()
	r.wg.Go(func() {
		io.Copy(client, server)
		client.Close()
	})
	io.Copy(server, io.TeeReader(client, lockedWriter{&r.mu, said}))
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// Close ends the proxy and returns, for each connection, what its client said.
func (r *Recorder) Close() [][]byte {
	r.l.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	var all [][]byte
	for _, b := range r.said {
		all = append(all, b.Bytes())
	}
	return all
}

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// serveHTTP answers /healthz (the process lives) and /readyz (it has joined and caught up).
func (n *Node) serveHTTP(ctx context.Context) error {
	if n.me.HTTP == "" {
		<-ctx.Done()
		return nil
	}
	ln, err := n.trans.ListenTCP(n.me.HTTP)
	if err != nil {
		return fmt.Errorf("http listener %s: %w", n.me.HTTP, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := n.notReady(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if host, _, _ := net.SplitHostPort(n.me.HTTP); net.ParseIP(host).IsLoopback() { // profiles tell too much to the network
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	}
	s := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http listener %s: %w", n.me.HTTP, err)
	}
	return nil
}

func (n *Node) notReady() string {
	n.mu.Lock()
	ready := n.ready
	n.mu.Unlock()
	switch {
	case !ready:
		return "not part of the cluster yet, or not caught up"
	case n.leaderName() == "":
		return errNoLeader.Error()
	}
	return ""
}

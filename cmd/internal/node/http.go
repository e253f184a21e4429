package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"hacluster/cmd/internal/metrics"
)

// serveHTTP answers /healthz (the process lives), /readyz (it has joined and caught up) and /metrics (its figures).
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
	mux.Handle("GET /metrics", metrics.Handler(n.snapshot))
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := n.NotReady(); why != "" {
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

// NotReady says why /readyz is not 200; empty: it is.
func (n *Node) NotReady() string {
	switch {
	case !n.isReady():
		return "not part of the cluster yet, or not caught up"
	case n.leaderName() == "":
		return errNoLeader.Error()
	}
	return ""
}

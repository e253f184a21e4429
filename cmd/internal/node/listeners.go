package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"hacluster/blockdev/frontend/nbd"
	"hacluster/cmd/internal/config"
)

// listeners are the places where this node serves NBD; several volumes may share one. One goroutine owns them.
type listeners struct {
	v      *volumes
	ctx    context.Context
	server *nbd.Server
	goes   sync.WaitGroup
	open   map[string]context.CancelFunc
	told   map[string]bool // that cannot be opened, as logged
	cfg    *config.Config  // that all are open of
	local  bool            // likewise, with that of local devices
}

// serveNBD makes the server and opens every listener of the configuration. One that cannot be opened at the start keeps
// the node from running; later it is tried again.
func (v *volumes) serveNBD(ctx context.Context) (*listeners, error) {
	cfg := nbdConfig(v.n.conf().Cluster.Limits)
	cfg.Log, cfg.TLS = v.n.log, v.n.trans.NBDServer()
	server, err := nbd.New(v, cfg)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.nbd = server
	v.mu.Unlock()
	l := &listeners{v: v, ctx: ctx, server: server, open: map[string]context.CancelFunc{}, told: map[string]bool{}}
	if err := l.follow(v.n.conf()); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

func (l *listeners) stop() {
	if err := l.server.Close(); err != nil {
		l.v.n.log.Warn("closing nbd", "error", err)
	}
	l.goes.Wait()
}

// follow opens and closes listeners as the configuration has them. The error is the first that could not be opened.
func (l *listeners) follow(cfg *config.Config) (first error) {
	local := l.v.n.devices.needed()
	if cfg == l.cfg && local == l.local {
		return nil
	}
	wanted := map[string]config.Listener{}
	for _, vol := range cfg.Volumes {
		if rep, ok := vol.Replica(l.v.n.me.Name); ok {
			for _, at := range rep.Export.NBD {
				wanted[at.String()] = at
			}
		}
	}
	if local {
		at := config.Listener{Network: "unix", Address: l.v.n.devices.socket()}
		wanted[at.String()] = at
	}
	for name, end := range l.open {
		if _, ok := wanted[name]; !ok {
			l.v.n.log.Info("nbd listener closed", "listener", name)
			end()
			delete(l.open, name)
		}
	}
	for _, name := range sortedKeys(wanted) {
		if l.open[name] != nil {
			continue
		}
		if err := l.listen(name, wanted[name]); err != nil {
			if first == nil {
				first = err
			}
			if !l.told[name] {
				l.v.n.log.Error("nbd listener cannot be opened", "listener", name, "error", err)
			}
			l.told[name] = true
		} else {
			delete(l.told, name)
		}
	}
	if l.cfg = nil; first == nil {
		l.cfg, l.local = cfg, local
	}
	return first
}

func (l *listeners) listen(name string, at config.Listener) error {
	listen := l.v.n.trans.ListenTCP
	if at.Network == "unix" {
		if err := os.MkdirAll(filepath.Dir(at.Address), 0o755); err != nil {
			return fmt.Errorf("nbd listener %s: %w", name, err)
		}
		listen = l.v.n.trans.ListenUnix
	}
	ln, err := listen(at.Address)
	if err != nil {
		return fmt.Errorf("nbd listener %s: %w", name, err)
	}
	ctx, end := context.WithCancel(l.ctx)
	l.open[name] = end
	l.goes.Go(func() {
		defer end()
		if err := l.server.Serve(ctx, ln); err != nil && ctx.Err() == nil {
			l.v.n.log.Error("nbd listener ended", "listener", name, "error", err)
		}
	})
	return nil
}

// nbdConfig are the limits of NBD as the configuration names them; the others are the package's own.
func nbdConfig(l config.Limits) nbd.Config {
	return nbd.Config{MaxConnections: int(l.NBDConnections), MaxRequestsInFlight: int(l.NBDRequests), MaxBytesInFlight: l.NBDBytes,
		MaxConnBytesInFlight: l.NBDConnectionBytes, HandshakeTimeout: l.NBDHandshake, SlowReaderTimeout: l.NBDSlowReader, StallTimeout: l.NBDStall}
}

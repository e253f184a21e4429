package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/identity"
)

// ask connects to the first server that answers and calls do with it, all within --timeout.
func (a *app) ask(ctx context.Context, do func(ctx context.Context, c *api.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

// connect is bounded by --timeout, whatever becomes of ctx afterwards.
func (a *app) connect(ctx context.Context) (*api.Client, error) {
	servers, err := a.whom()
	if err != nil {
		return nil, err
	}
	dial, err := a.dialer(servers)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, err := api.Dial(ctx, servers, dial)
	if err == nil {
		a.prefer(c.Server)
	}
	return c, err
}

// whom lists who may be asked: --server, or the local daemon.
func (a *app) whom() ([]string, error) {
	for i, s := range a.servers {
		if s = strings.TrimSpace(s); s == "" {
			return nil, api.BadRequest("--server names an empty address: %s", wantServer)
		}
		a.servers[i] = s
	}
	if len(a.servers) > 0 {
		return a.servers, nil
	}
	socket, err := a.localSocket()
	if err != nil {
		return nil, err
	}
	return []string{"unix://" + socket}, nil
}

// localSocket finds the local daemon's socket through data_dir. Without a file where it lies by default, the daemon
// is looked for where it is by default.
func (a *app) localSocket() (string, error) {
	path, err := config.AdminSocket(a.config, a.nodeName())
	if errors.Is(err, fs.ErrNotExist) && !a.flags.PersistentFlags().Changed("config") {
		return config.DefaultAdminSocket(), nil
	}
	if err != nil {
		return "", api.Failed("find the local daemon's socket: %v: or name a server with --server, or a node with --node", err)
	}
	return path, nil
}

func (a *app) nodeName() string {
	if a.node != "" {
		return a.node
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// dialer refuses what would leave the machine without TLS before anything is sent. Certificates are read only when a
// server is not a local socket.
func (a *app) dialer(servers []string) (api.Dialer, error) {
	var transport *identity.Transport
	remote := false
	for _, s := range servers {
		if _, local := socketPath(s); local {
			continue
		}
		remote = true
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			return nil, api.BadRequest("--server %s is no address: %s", s, wantServer)
		}
		if !a.insecure {
			continue
		}
		if ip, err := netip.ParseAddr(host); err == nil && !ip.Unmap().IsLoopback() {
			return nil, api.Refused("--insecure to %s: without TLS only loopback addresses are allowed: use the local daemon's socket there", s)
		}
	}
	if remote {
		var err error
		if transport, err = identity.New(identity.Config{Insecure: a.insecure, PKI: a.folder().Path, User: a.user}); err != nil {
			return nil, api.Failed("%v", err)
		}
	}
	return func(ctx context.Context, server string) (net.Conn, error) {
		if path, local := socketPath(server); local {
			return api.DialSocket(ctx, path)
		}
		return transport.Dial(ctx, server, identity.ProtoGRPC)
	}, nil
}

const wantServer = "host:port, or the path of a daemon's socket is wanted, such as 10.0.0.1:7400, /var/lib/hacluster/admin.sock or ./admin.sock"

// socketPath tells a path, with or without unix:// before it, from host:port: a path has a slash. Of another scheme it is none.
func socketPath(server string) (path string, ok bool) {
	if path, ok := strings.CutPrefix(server, "unix://"); ok {
		return path, true
	}
	return server, strings.Contains(server, "/") && !strings.Contains(server, "://")
}

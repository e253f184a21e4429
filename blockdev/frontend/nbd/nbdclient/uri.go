package nbdclient

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// target is what an NBD URI says.
type target struct {
	network, address string
	host             string // for TLS
	export           string
	tls              bool
}

// parseURI understands nbd://host[:port]/export and nbd+unix:///export?socket=path, and nbds for TLS
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md).
func parseURI(s string) (target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return target{}, fmt.Errorf("nbd uri %q: %w", s, err)
	}
	t := target{export: strings.TrimPrefix(u.Path, "/"), tls: strings.HasPrefix(u.Scheme, "nbds")}
	switch u.Scheme {
	case "nbd", "nbds":
		port := u.Port()
		if port == "" {
			port = "10809"
		}
		t.network, t.address, t.host = "tcp", net.JoinHostPort(u.Hostname(), port), u.Hostname()
	case "nbd+unix", "nbds+unix":
		t.network, t.address = "unix", u.Query().Get("socket")
		if t.address == "" {
			return target{}, fmt.Errorf("nbd uri %q: no ?socket=PATH", s)
		}
	default:
		return target{}, fmt.Errorf("nbd uri %q: scheme must be nbd, nbds, nbd+unix or nbds+unix", s)
	}
	return t, nil
}

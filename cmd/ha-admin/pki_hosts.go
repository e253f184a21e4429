package main

import (
	"errors"
	"io/fs"
	"net"
	"slices"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
)

// hosts are the addresses, beside its name, that a node's certificate bears: NBD clients of others (libnbd, qemu) compare
// the host of their URI with it, and refuse a server whose certificate does not name that host. Those of cluster.hcl are
// taken by themselves; without a file where it lies by default there are none, and known is false.
func (a *app) hosts(node string) (hosts []string, known bool, err error) {
	given := a.flags.PersistentFlags().Changed("config")
	rep, err := config.Check(a.config, config.Options{})
	if errors.Is(err, fs.ErrNotExist) && !given {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, api.BadRequest("which addresses has %s? %v", node, err)
	}
	n, ok := rep.Config.Node(node)
	if !ok {
		if given {
			return nil, false, api.BadRequest("%s has no node %q", a.config, node)
		}
		return nil, false, nil // the file of another cluster, perhaps
	}
	addresses := []string{n.Address}
	for _, v := range rep.Config.Volumes {
		r, _ := v.Replica(node)
		for _, l := range r.Export.NBD {
			if l.Network == "tcp" {
				addresses = append(addresses, l.Address)
			}
		}
	}
	for _, at := range addresses {
		host, _, err := net.SplitHostPort(at)
		if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() || slices.Contains(hosts, host) {
			continue // what listens on every address is reached by the others
		}
		hosts = append(hosts, host)
	}
	return hosts, true, nil
}

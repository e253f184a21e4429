package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/identity/pki"
)

const pkiHelp = `The folder (--pki) holds the certificates and keys of one cluster. It is made once, on a machine that is kept safe:

  ha-admin pki init --cluster shop
  ha-admin pki node alpha beta gamma --config /etc/hacluster/cluster.hcl
  ha-admin pki user alice --role operator

Each server needs ca.crt, gossip.key and its own node-NAME.crt and .key in its folder; each user ca.crt and their own
user-NAME.crt and .key. ca.key goes nowhere. Daemons read the folder at their start and at SIGHUP.

Roles: viewer looks; operator also moves primaries, resyncs, and may use volumes over NBD; admin may do everything.`

const pkiNodeHelp = `NBD clients such as libnbd and qemu compare the host of their URI with the names in the node's certificate. It bears the
node's name, the addresses that cluster.hcl (--config) gives the node, and those of --host. Without either, NBD over tcp
works only for clients that do not compare. ` + "`ha-admin pki rotate certs`" + ` keeps what a certificate bears.`

func (a *app) pkiCommand() *cobra.Command {
	g := group("pki", "make and change certificates and keys", a.pkiInit(), a.pkiNode(), a.pkiUser(), a.pkiRotate())
	g.Long = pkiHelp
	return g
}

func (a *app) folder() pki.Folder {
	if a.pki == "" {
		return pki.Folder{Path: pki.DefaultPath}
	}
	return pki.Folder{Path: a.pki}
}

func (a *app) pkiInit() *cobra.Command {
	var cluster string
	valid := days(pki.DefaultCA)
	c := command("init", "make the folder: a certificate authority and a gossip key", none, func(context.Context, []string) error {
		if cluster == "" {
			rep, err := config.Check(a.config, config.Options{})
			if err != nil {
				return api.BadRequest("which cluster? name it with --cluster, or its file with --config: %v", err)
			}
			cluster = rep.Config.Cluster.Name
		}
		if err := a.folder().Init(cluster, time.Duration(valid)); err != nil {
			return pkiError(err)
		}
		return a.done("made %s for cluster %s; next: ha-admin pki node NAME..., ha-admin pki user NAME --role ROLE", a.folder().Path, cluster)
	})
	c.Flags().StringVar(&cluster, "cluster", "", "the cluster's `name` (default: that of --config)")
	c.Flags().Var(&valid, "valid", "how long the authority is valid, in days (365d) or hours")
	return c
}

func (a *app) pkiNode() *cobra.Command {
	var hosts []string
	valid := days(pki.DefaultLeaf)
	c := command("node NAME...", "make certificates of nodes, named as in cluster.hcl", some, func(_ context.Context, names []string) error {
		if len(hosts) > 0 && len(names) > 1 {
			return api.BadRequest("--host belongs to one node, %d are named: make them one by one", len(names))
		}
		hint := ""
		for _, name := range names {
			found, known, err := a.hosts(name)
			if err != nil {
				return err
			}
			if !known && len(hosts) == 0 {
				hint = "; they name no address: for NBD over tcp make them with --config or --host"
			}
			if err := a.folder().Node(name, append(found, hosts...), time.Duration(valid)); err != nil {
				return pkiError(err)
			}
		}
		return a.done("made %s in %s; each node needs its own, ca.crt and gossip.key%s", files("node-", names), a.folder().Path, hint)
	})
	c.Long = pkiNodeHelp
	c.Flags().StringSliceVar(&hosts, "host", nil, "further names or addresses by which NBD clients of others reach the node over tcp")
	c.Flags().Var(&valid, "valid", "how long the certificates are valid, in days (90d) or hours")
	return c
}

func (a *app) pkiUser() *cobra.Command {
	var role string
	valid := days(pki.DefaultLeaf)
	c := command("user NAME", "make the certificate of a user", one, func(_ context.Context, names []string) error {
		if role == "" {
			return api.BadRequest("--role is missing: admin, operator or viewer is wanted")
		}
		if err := a.folder().User(names[0], pki.Role(role), time.Duration(valid)); err != nil {
			return pkiError(err)
		}
		return a.done("made %s (%s) in %s; the user needs it and ca.crt", files("user-", names), role, a.folder().Path)
	})
	c.Flags().StringVar(&role, "role", "", "admin, operator or viewer")
	c.Flags().Var(&valid, "valid", "how long the certificate is valid, in days (90d) or hours")
	return c
}

// files is "node-a, node-b" for messages.
func files(prefix string, names []string) string {
	return prefix + strings.Join(names, ", "+prefix)
}

// pkiError gives an error of the folder its kind.
func pkiError(err error) error {
	switch {
	case errors.Is(err, pki.ErrUsage):
		return api.BadRequest("%v", err)
	case errors.Is(err, pki.ErrExists), errors.Is(err, pki.ErrStep):
		return api.Refused("%v", err)
	}
	return api.Failed("%v", err)
}

// days is a duration that people count in days.
type days time.Duration

func (d *days) String() string {
	if h := time.Duration(*d).Hours(); h >= 24 {
		return strconv.FormatFloat(h/24, 'f', -1, 64) + "d"
	}
	return time.Duration(*d).String()
}

func (d *days) Set(s string) error {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		count, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return fmt.Errorf("%q: days such as 365d, or hours such as 12h, are wanted", s)
		}
		*d = days(time.Duration(count) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q: days such as 365d, or hours such as 12h, are wanted", s)
	}
	*d = days(v)
	return nil
}

// Type is part of pflag.Value.
func (d *days) Type() string { return "time" }

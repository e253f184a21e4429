package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/identity/pki"
)

const rotateHelp = `Without an argument: what there is, until when it is valid, and which step of a rotation is next.

  rotate certs [node-NAME|user-NAME ...]   new keys and certificates in the place of these, or of all
  rotate ca add|use|remove                 another certificate authority, in three steps
  rotate gossip add|use|remove             another gossip key, in three steps

The cluster goes on meanwhile. After each step take the files that it names to every server, and have each daemon read
them: systemctl reload haclusterd, or kill -HUP. Only when all have it is the next step due. "remove" is refused while
a certificate of this folder hangs on the old authority.`

func (a *app) pkiRotate() *cobra.Command {
	valid := days(0)
	c := command("rotate [certs|ca|gossip] [...]", "replace certificates, the authority or the gossip key", anyNumber, func(_ context.Context, args []string) error {
		if len(args) == 0 {
			return a.rotateOverview()
		}
		switch what, rest := args[0], args[1:]; {
		case what == "certs":
			return a.rotateCerts(rest, valid.or(pki.DefaultLeaf))
		case what != "ca" && what != "gossip":
			return api.BadRequest("rotate %q: certs, ca or gossip is wanted", what)
		case len(rest) != 1 || !validStep(rest[0]):
			return api.BadRequest("rotate %s %s: one of add, use and remove is wanted", what, strings.Join(rest, " "))
		case what == "ca":
			return a.rotateCA(pki.Step(rest[0]), valid)
		default:
			return a.rotateGossip(pki.Step(rest[0]))
		}
	})
	c.Long = rotateHelp
	c.Flags().Var(&valid, "valid", "how long what is made is valid, in days (90d) or hours (default 365d; 3650d for an authority)")
	return c
}

func validStep(s string) bool {
	return s == string(pki.StepAdd) || s == string(pki.StepUse) || s == string(pki.StepRemove)
}

func (d days) or(v time.Duration) time.Duration {
	if d == 0 {
		return v
	}
	return time.Duration(d)
}

const reload = "and have every daemon read them (systemctl reload haclusterd)"

func (a *app) rotateCerts(files []string, valid time.Duration) error {
	done, err := a.folder().Reissue(files, valid)
	if err != nil {
		return pkiError(err)
	}
	if len(done) == 0 {
		return a.done("there are no certificates of nodes or users in %s", a.folder().Path)
	}
	return a.done("made anew: %s; take each .crt and .key to its place %s", strings.Join(done, ", "), reload)
}

func (a *app) rotateCA(step pki.Step, valid days) error {
	d := valid.or(pki.DefaultLeaf)
	if step == pki.StepAdd {
		d = valid.or(pki.DefaultCA)
	}
	made, err := a.folder().RotateCA(step, d)
	if err != nil {
		return pkiError(err)
	}
	switch step {
	case pki.StepAdd:
		return a.done("step 1 of 3: ca.crt trusts the new authority beside the old one; take it to every server and user %s; when all have it: ha-admin pki rotate ca use", reload)
	case pki.StepUse:
		return a.done("step 2 of 3: the new authority signed %s; take each .crt and .key, and ca.crt, to its place %s; when all have it: ha-admin pki rotate ca remove",
			strings.Join(made, ", "), reload)
	}
	return a.done("step 3 of 3: ca.crt trusts the new authority only; take it to every server and user %s; then the old one is worth nothing", reload)
}

func (a *app) rotateGossip(step pki.Step) error {
	if err := a.folder().RotateGossip(step); err != nil {
		return pkiError(err)
	}
	switch step {
	case pki.StepAdd:
		return a.done("step 1 of 3: gossip.key opens with the new key too; take it to every server %s; when all have it: ha-admin pki rotate gossip use", reload)
	case pki.StepUse:
		return a.done("step 2 of 3: gossip.key seals with the new key; take it to every server %s; when all have it: ha-admin pki rotate gossip remove", reload)
	}
	return a.done("step 3 of 3: gossip.key holds the new key only; take it to every server %s; then the old one is worth nothing", reload)
}

// overview is the folder as a script reads it.
type overview struct {
	Certificates []overviewCert `json:"certificates"`
	NextCA       pki.Step       `json:"next_ca_step"`
	NextGossip   pki.Step       `json:"next_gossip_step"`
}

type overviewCert struct {
	File     string    `json:"file"`
	For      string    `json:"for"`
	NotAfter time.Time `json:"not_after"`
}

func (a *app) rotateOverview() error {
	o, err := a.readOverview()
	if err != nil {
		return pkiError(err)
	}
	if a.output == "json" {
		return a.printJSON(o)
	}
	t := newTable("FILE", "FOR", "VALID UNTIL")
	for _, c := range o.Certificates {
		t.row(c.File, c.For, c.NotAfter.Format(time.RFC3339))
	}
	return a.print(fmt.Sprintf("%snext steps: ha-admin pki rotate ca %s, ha-admin pki rotate gossip %s\n", t, o.NextCA, o.NextGossip))
}

func (a *app) readOverview() (o overview, err error) {
	f := a.folder()
	cas, err := f.Authorities()
	if err != nil {
		return o, err
	}
	for _, c := range cas {
		o.Certificates = append(o.Certificates, overviewCert{"ca.crt", c.URIs[0].String(), c.NotAfter.UTC()})
	}
	leaves, err := f.Leaves()
	if err != nil {
		return o, err
	}
	for _, l := range leaves {
		o.Certificates = append(o.Certificates, overviewCert{l.File + ".crt", l.Subject.String(), l.Cert.NotAfter.UTC()})
	}
	if o.NextCA, err = f.NextCA(); err != nil {
		return o, err
	}
	g, err := f.GossipKeys()
	if err != nil {
		return o, err
	}
	o.NextGossip = g.Next()
	return o, nil
}

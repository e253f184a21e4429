package config

import (
	"fmt"
	"time"
)

// Defaults of the cluster block.
const (
	defaultRTO          = "3s"
	defaultDataDir      = "/var/lib/hacluster"
	defaultAttachDir    = "/dev/hacluster"
	defaultDiskDeadline = 5 * time.Second
	minDiskDeadline     = 100 * time.Millisecond

	maxNodes = 32
)

// folders are what of the cluster block may differ between nodes.
type folders struct {
	data   string
	attach string // empty: the default
}

// cluster reads the cluster block for the node in scope.
func (r *reader) cluster(root *body) (c Cluster, dirs folders) {
	c, dirs.data = Cluster{RTO: 3 * time.Second, DiskDeadline: defaultDiskDeadline, Limits: DefaultLimits()}, defaultDataDir
	b := root.one(true, "cluster")
	if b == nil {
		if !root.has("cluster") {
			r.add(pos{}, "missing block cluster", `it needs one: cluster "name" { ... }`)
		}
		return c, dirs
	}
	defer b.finish()
	c.Name, c.at = b.label, b.at
	if !nameForm.MatchString(c.Name) {
		r.add(b.at, "unusable name", wantName)
	}
	c.RTO = b.duration("rto", defaultRTO)
	c.DiskDeadline = b.duration("disk_deadline", defaultDiskDeadline.String())
	if c.DiskDeadline < minDiskDeadline {
		r.add(b.posOfKey("disk_deadline"), "too short", minDiskDeadline.String()+" or more is wanted: slower disks would be taken for hung ones")
	}
	fencing, at := b.choice("fencing", string(FencingLease), string(FencingRequired))
	c.fencingAt = at
	if Fencing(fencing) == FencingRequired {
		c.Fencing = FencingRequired
	}
	c.Limits, c.rtoAt, c.diskAt = r.limits(b), b.posOfKey("rto"), b.posOfKey("disk_deadline")
	return c, folders{r.dataDir(b), r.attachDir(b)}
}

// attachDir reads the folder of the links to local devices.
func (r *reader) attachDir(b *body) string {
	v := b.str("attach_dir", defaultAttachDir)
	if !v.set {
		return ""
	}
	if want := badPath(v.s); want != "" {
		r.addValue(v, "unusable path", want)
	}
	return v.s
}

func (r *reader) dataDir(b *body) string {
	v := b.str("data_dir", defaultDataDir)
	if !v.set {
		return defaultDataDir
	}
	if want := badPath(v.s); want != "" {
		r.addValue(v, "unusable path", want)
	} else if len(adminSocket(v.s)) > maxSocketPath {
		r.addValue(v, "path too long", fmt.Sprintf("at most %d bytes are wanted, it holds a unix socket", maxSocketPath-len(adminSocket("/"))))
	}
	return v.s
}

// timers derives them from the RTO target.
func (r *reader) timers(root *body, rto time.Duration) Timers {
	t, err := TimersFor(rto)
	if err == nil {
		return t
	}
	at := pos{text: "rto"}
	if all := root.blocks(true, "cluster"); len(all) > 0 {
		at = all[0].posOfKey("rto")
	}
	r.add(at, "RTO target cannot be met", err.Error())
	return derive(3 * time.Second)
}

// nodes reads the node blocks. In a node's block, `node` is that node itself; its host is known once its address is.
func (r *reader) nodes(root *body) []Node {
	var out []Node
	first := map[string]int{}
	for i, b := range root.blocks(true, "node") {
		if i == maxNodes {
			r.add(b.at, "too many nodes", fmt.Sprintf("at most %d are wanted", maxNodes))
			break
		}
		if line, twice := first[b.label]; twice {
			r.add(b.at, "duplicate node", fmt.Sprintf("another name is wanted, this one stands in line %d", line))
		} else {
			first[b.label] = b.at.line
			out = append(out, r.node(b))
		}
	}
	if !root.has("node") {
		r.add(pos{}, "no node", `it needs some: node "name" { address = "10.0.0.1:7400" }`)
	}
	return out
}

func (r *reader) node(b *body) Node {
	defer b.finish()
	n := Node{Name: b.label, at: b.at}
	if !nameForm.MatchString(n.Name) {
		r.add(b.at, "unusable name", wantName)
	}
	role, _ := b.choice("role", string(RoleData), string(RoleWitness))
	n.Role = Role(role)
	if site := b.str("site", "east"); site.set {
		if n.Site = site.s; !nameForm.MatchString(site.s) {
			r.addValue(site, "unusable name", wantName)
		}
	}
	b.vars = scope{"node.name": usableName(n.Name)}
	address := b.need("address", "10.0.0.1:7400")
	n.Address, n.addressAt = r.endpoint(address), address.at
	b.vars = nodeScope(n)
	for _, link := range b.strs("links", "10.0.0.1:7401") {
		n.Links = append(n.Links, r.endpoint(link))
		n.linksAt = append(n.linksAt, link.at)
	}
	if http := b.str("http", "127.0.0.1:7480"); http.s != "" {
		n.HTTP, n.httpAt = r.endpoint(http), http.at
	}
	return n
}

// endpoint checks one host:port and gives it back in its canonical form, so that equal ones are equal everywhere.
func (r *reader) endpoint(v value) string {
	if !v.set {
		return ""
	}
	e, want := parseEndpoint(v.s)
	if want != "" {
		r.addValue(v, "unusable address", want)
		return v.s
	}
	return e.String()
}

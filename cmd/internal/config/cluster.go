package config

import (
	"fmt"
	"time"
)

// Defaults of the cluster block.
const (
	defaultRTO          = "3s"
	defaultDataDir      = "/var/lib/hacluster"
	defaultDiskDeadline = 5 * time.Second
	minDiskDeadline     = 100 * time.Millisecond
)

// cluster reads the cluster block for the node in scope; data_dir is the one thing that may differ between nodes.
func (r *reader) cluster(root *body) (c Cluster, dataDir string) {
	c, dataDir = Cluster{RTO: 3 * time.Second, DiskDeadline: defaultDiskDeadline}, defaultDataDir
	b := root.one(true, "cluster")
	if b == nil {
		if !root.has("cluster") {
			r.add(pos{}, "missing block cluster", `it needs one: cluster "name" { ... }`)
		}
		return c, dataDir
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
	return c, r.dataDir(b)
}

func (r *reader) dataDir(b *body) string {
	v := b.str("data_dir", defaultDataDir)
	if !v.set {
		return defaultDataDir
	}
	if want := badPath(v.s); want != "" {
		r.add(v.at, "unusable path", want)
	} else if want := badSocketPath(adminSocket(v.s)); want != "" {
		r.add(v.at, "path too long", "a shorter data_dir is wanted, it holds a unix socket: "+want)
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
	for _, b := range root.blocks(true, "node") {
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
	b.vars = nodeScope(n)
	n.Address = r.endpoint(b.need("address", "10.0.0.1:7400"))
	b.vars = nodeScope(n)
	for _, link := range b.strs("links", "10.0.0.1:7401") {
		n.Links = append(n.Links, r.endpoint(link))
	}
	if http := b.str("http", "127.0.0.1:7480"); http.s != "" {
		n.HTTP = r.endpoint(http)
	}
	return n
}

// endpoint checks one host:port and gives it back as it is written.
func (r *reader) endpoint(v value) string {
	if !v.set {
		return ""
	}
	if _, want := parseEndpoint(v.s); want != "" {
		r.add(v.at, "unusable address", want)
	}
	return v.s
}

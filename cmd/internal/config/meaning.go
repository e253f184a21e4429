package config

import (
	"fmt"
)

// checkMeaning finds what is wrong between parts that are each right for themselves.
func (c *Config) checkMeaning(r *report) {
	c.checkLoopback(r)
	c.checkListeners(r)
	c.checkDevices(r)
	c.checkAsync(r)
	c.checkGroups(r)
	for _, v := range c.Volumes {
		r.ways(v)
	}
	c.checkFences(r)
}

// onOneMachine: all nodes share this machine, because they are reached by loopback addresses.
func (c *Config) onOneMachine() bool {
	for _, n := range c.Nodes {
		if !isLoopback(n.Address) {
			return false
		}
	}
	return len(c.Nodes) > 0
}

func isLoopback(address string) bool {
	e, want := parseEndpoint(address)
	return want == "" && e.loopback()
}

// checkLoopback refuses a cluster of which some members could not reach each other (faults.md C75).
func (c *Config) checkLoopback(r *report) {
	var first endpoint
	for _, n := range c.Nodes {
		for i, a := range append([]string{n.Address}, n.Links...) {
			e, want := parseEndpoint(a)
			switch {
			case want != "" || e.host == refusedHost:
			case first.host == "":
				first = e
			case first.loopback() != e.loopback():
				r.add(append([]pos{n.addressAt}, n.linksAt...)[i], "loopback addresses mixed with others",
					fmt.Sprintf("%v is the first one here: all by loopback addresses, on one machine, or none", first))
				return
			}
		}
	}
}

// listening is a place where some node listens.
type listening struct {
	node, what string
	network    string // "tcp", "nbd+tcp", or "unix"
	key        string
	loopback   bool
	at         pos
}

// checkListeners refuses what cannot be listened on because something else does (faults.md C72). Volumes may share a
// tcp listener for NBD: the client names the volume.
func (c *Config) checkListeners(r *report) {
	oneMachine := c.onOneMachine()
	byKey := map[string][]listening{}
	for _, a := range c.listeners() {
		for _, b := range byKey[a.key] {
			sameMachine := a.node == b.node || oneMachine || (a.network != "unix" && !a.loopback)
			shared := a.network == "nbd+tcp" && b.network == "nbd+tcp" && a.node == b.node
			if sameMachine && !shared {
				r.add(a.at, "address used twice", fmt.Sprintf("another one is wanted: %s of %s has it, in line %d", b.what, b.node, b.at.line))
				break
			}
		}
		byKey[a.key] = append(byKey[a.key], a)
	}
}

func (c *Config) listeners() []listening {
	var all []listening
	tcp := func(n Node, what, network, address string, at pos) {
		if e, want := parseEndpoint(address); want == "" && e.host != refusedHost {
			at.text = what + " " + address
			all = append(all, listening{node: n.Name, what: what, network: network, key: e.key(), loopback: e.loopback(), at: at})
		}
	}
	for _, n := range c.Nodes {
		tcp(n, "address", "tcp", n.Address, n.addressAt)
		for i, l := range n.Links {
			tcp(n, "link", "tcp", l, n.linksAt[i])
		}
		tcp(n, "http", "tcp", n.HTTP, n.httpAt)
	}
	for _, v := range c.Volumes {
		for _, rep := range v.Replicas {
			for _, l := range rep.Export.NBD {
				if l.Network == "tcp" {
					tcp(Node{Name: rep.Node}, "export of "+v.Name, "nbd+tcp", l.Address, l.at)
					continue
				}
				at := pos{line: l.at.line, text: "export of " + v.Name + " " + l.Address}
				all = append(all, listening{node: rep.Node, what: "export of " + v.Name, network: "unix", key: l.Address, at: at})
			}
		}
	}
	return all
}

// device is a backing by what it is on this machine, as far as that can be known here.
type device struct {
	volume string
	rep    Replica
	id     string
}

// checkDevices refuses one device for two replicas on one machine, also behind a symbolic link, and metadata under a
// device (faults.md C73, C80). What a device really is, the daemon finds out when it opens it.
func (c *Config) checkDevices(r *report) {
	oneMachine := c.onOneMachine()
	seen := map[string][]device{}
	for _, v := range c.Volumes {
		for _, rep := range v.Replicas {
			if badPath(rep.Device) != "" {
				continue
			}
			d := device{volume: v.Name, rep: rep, id: rep.Device}
			if oneMachine || rep.Node == c.Self {
				d.id = deviceIdentity(rep.Device)
			}
			c.checkDevice(r, d, seen[d.id], oneMachine)
			seen[d.id] = append(seen[d.id], d)
		}
	}
}

// checkDevice looks at a device beside others with the same id.
func (c *Config) checkDevice(r *report, d device, same []device, oneMachine bool) {
	for _, other := range same {
		if oneMachine || other.rep.Node == d.rep.Node {
			r.add(d.rep.deviceAt, "device used twice", fmt.Sprintf("another one is wanted: %s of volume %q on %s is the same, in line %d",
				other.rep.Device, other.volume, other.rep.Node, other.rep.deviceAt.line))
			return
		}
	}
	n, _ := c.Node(d.rep.Node)
	if n.DataDir != "" && (within(d.rep.Device, n.DataDir+"/volumes") || within(n.DataDir, d.rep.Device)) {
		r.add(d.rep.deviceAt, "device among the metadata", "a path outside of "+n.DataDir+"/volumes is wanted")
	}
}

// checkInsecure refuses --insecure where others than this machine could listen in or speak.
func (c *Config) checkInsecure(r *report) {
	if !c.Insecure {
		return
	}
	for _, l := range c.listeners() {
		if l.network != "unix" && !l.loopback {
			r.add(l.at, "--insecure with an address that is no loopback address", "127.0.0.0/8 or ::1 is wanted, or no --insecure")
		}
	}
}

// warnings tells what is right only under conditions that the file does not show.
func (c *Config) warnings() Problems {
	r := &report{file: c.File}
	if c.onOneMachine() {
		for i, n := range c.Nodes[1:] {
			if n.DataDir == c.Nodes[i].DataDir {
				r.add(pos{line: c.Cluster.at.line, text: "data_dir " + n.DataDir}, "one data_dir for nodes on one machine",
					"use ${node.name} in it, or start each node with --data-dir")
				break
			}
		}
	}
	return r.problems
}

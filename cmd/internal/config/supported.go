package config

import (
	"fmt"
	"time"
)

// Supported tells what the file asks for and the daemon cannot do yet, as Problems; nil when it can do all of it.
// Load has asked already. `ha-admin config check` shows it as warnings: the file is right, and will start one day.
func (c *Config) Supported() error { return c.unsupported().sorted().err() }

// refusal collects what is not supported yet.
type refusal struct{ report }

func (r *refusal) not(at pos, want string) {
	r.add(at, "not supported yet", want+": the daemon refuses to start with it")
}

func (c *Config) unsupported() Problems {
	r := &refusal{report{file: c.File}}
	c.unsupportedShape(r)
	for _, v := range c.Volumes {
		v.unsupported(r)
	}
	for _, s := range c.Services {
		s.unsupported(r, c)
		if c.Cluster.RTO < minServiceRTO {
			r.not(s.at, fmt.Sprintf("a service needs rto = %q or more, for its guard has a quarter of that to take it down", minServiceRTO))
		}
	}
	return r.problems
}

// maxReplicas is how many replicas of a volume have been tried together.
const maxReplicas = 4

// unsupportedShape refuses clusters of which a majority is not what survives the loss of one node, or of two of five. Every node
// votes. Two data nodes alone cannot outvote each other: the loss of one would suspend the other until a fence agent or a person
// has spoken, and there is neither yet (protocol.md, section 4; faults.md C77); four or six outlive no more losses than three or five.
func (c *Config) unsupportedShape(r *refusal) {
	data, witnesses := 0, 0
	for _, n := range c.Nodes {
		if n.Role == RoleWitness {
			witnesses++
		} else {
			data++
		}
	}
	at := pos{line: c.Cluster.at.line, text: fmt.Sprintf("data nodes: %d, witnesses: %d", data, witnesses)}
	even := fmt.Sprintf(", because %d voters outlive the loss of no more nodes than %d", data+witnesses, data+witnesses-1)
	switch {
	case data == 2 && witnesses == 0:
		r.not(at, `add a node with role = "witness", because two voters cannot outvote each other when one is lost`)
	case data < 2:
		r.not(at, "two data nodes or more are wanted")
	case data+witnesses > 5:
		r.not(at, "three or five nodes are wanted: all of them vote")
	case (data+witnesses)%2 == 0 && witnesses > 0:
		r.not(at, "leave a witness out"+even)
	case (data+witnesses)%2 == 0:
		r.not(at, `add a node with role = "witness"`+even)
	}
}

// minServiceRTO leaves a guard half a second.
const minServiceRTO = 2 * time.Second

func (s Service) unsupported(r *refusal, c *Config) {
	if !c.mirroredAsOne(s.Volumes) {
		r.not(s.at, "one volume of a service is wanted, or several of one group, which move as one")
	}
	for _, res := range s.Resources {
		if res.Kind == "mount" {
			r.not(res.at, "a service cannot mount the local device: leave the block out")
		}
	}
}

func (v Volume) unsupported(r *refusal) {
	if len(v.Replicas) < 2 {
		r.not(v.at, "two replicas are wanted, not one")
	}
	for _, rep := range v.Replicas[min(maxReplicas, len(v.Replicas)):] {
		r.not(rep.at, "up to four replicas of a volume are wanted, not more")
	}
	for _, rep := range v.Replicas {
		if a := rep.Export.Attach; a == AttachUblk || a == AttachNBD {
			r.not(rep.Export.at, `attach = "auto", "fuse" or "none" is wanted`)
		}
	}
}

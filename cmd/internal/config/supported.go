package config

import (
	"fmt"
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
		r.not(s.at, "leave the block out")
	}
	for _, f := range c.Fences {
		r.not(f.at, "leave the block out")
	}
	return r.problems
}

// unsupportedShape refuses clusters other than two data nodes and a witness. Two data nodes alone cannot outvote each
// other: the loss of one would suspend the other until a fence agent or a person has spoken, and there is neither yet
// (protocol.md, section 4; faults.md C77).
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
	switch {
	case data == 2 && witnesses == 1:
	case data == 2 && witnesses == 0:
		r.not(at, `add a node with role = "witness", because two voters cannot outvote each other when one is lost`)
	default:
		r.not(at, "two data nodes and one witness are wanted")
	}
}

// Supported reports whether the daemon serves volumes of the mode already, as unsupported says with the line.
func (m Mode) Supported() bool { return m != ModeAsync }

func (v Volume) unsupported(r *refusal) {
	if v.Mode == ModeAsync {
		r.not(v.modeAt, `mode = "sync" or "semisync" is wanted`)
	}
	if len(v.Replicas) < 2 {
		r.not(v.at, "two replicas are wanted, not one")
	}
	for _, rep := range v.Replicas[min(2, len(v.Replicas)):] {
		r.not(rep.at, "two replicas of a volume are wanted, not more")
	}
	for _, rep := range v.Replicas {
		if a := rep.Export.Attach; a != "" && a != AttachAuto && a != AttachNone {
			r.not(rep.Export.at, `attach = "none" is wanted`)
		}
	}
}

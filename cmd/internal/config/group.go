package config

import (
	"fmt"
	"slices"
	"strings"
)

// Volumes with the same group are mirrored as one: one order of writes, one primary, one in-sync set. So they have the same nodes and
// the same settings, and each a device of its own.

// Mirror is what is mirrored as one: a volume, or all volumes of a group. Of a group the Volume has the group's name, the size of all
// together, the settings that they share, and replicas without devices.
type Mirror struct {
	Volume
	Parts []Volume // of a group, in the order of the file
}

// Mirrors are all of them, in the order of the file.
func (c *Config) Mirrors() (all []Mirror) {
	done := map[string]bool{}
	for _, v := range c.Volumes {
		if m := c.mirrorOf(v); !done[m.Name] {
			done[m.Name] = true
			all = append(all, m)
		}
	}
	return all
}

// Mirror finds one by its name: that of a volume without a group, or of a group.
func (c *Config) Mirror(name string) (Mirror, bool) {
	if v, ok := c.Volume(name); ok && v.mirrored() == name {
		return c.mirrorOf(v), true
	}
	for i := range c.Volumes {
		if v := &c.Volumes[i]; v.Group == name && name != "" {
			return c.mirrorOf(*v), true
		}
	}
	return Mirror{}, false
}

// Mirrored is the name of what a volume is mirrored as: its group, or its own.
func (c *Config) Mirrored(volume string) string {
	if v, ok := c.Volume(volume); ok {
		return v.mirrored()
	}
	return volume
}

func (v Volume) mirrored() string {
	if v.Group != "" {
		return v.Group
	}
	return v.Name
}

func (c *Config) mirrorOf(v Volume) Mirror {
	if v.Group == "" {
		return Mirror{Volume: v}
	}
	m := Mirror{Volume: v}
	m.Name, m.Size, m.Replicas = v.Group, 0, slices.Clone(v.Replicas)
	for i := range m.Replicas {
		m.Replicas[i].Device, m.Replicas[i].Export = "", Export{}
	}
	for _, part := range c.Volumes {
		if part.Group == v.Group {
			m.Size += part.Size
			m.Parts = append(m.Parts, part)
		}
	}
	return m
}

// mirroredAsOne reports whether the volumes have one primary at any time.
func (c *Config) mirroredAsOne(volumes []string) bool {
	for _, v := range volumes {
		if c.Mirrored(v) != c.Mirrored(volumes[0]) {
			return false
		}
	}
	return true
}

// group reads the optional name of the group; empty when the file has none.
func (b *body) group() (string, pos) {
	v := b.str("group", "pg")
	if v.set && !nameForm.MatchString(v.s) {
		b.r.addValue(v, "unusable name", wantName)
	}
	return v.s, v.at
}

// checkGroups refuses what the volumes of a group cannot have apart from each other.
func (c *Config) checkGroups(r *report) {
	first := map[string]Volume{}
	for _, v := range c.Volumes {
		if v.Group == "" {
			continue
		}
		if o, taken := c.Volume(v.Group); taken {
			r.add(v.groupAt, "a group with the name of a volume", fmt.Sprintf("another name is wanted: the volume of that name stands in line %d", o.at.line))
		}
		if o, ok := first[v.Group]; ok {
			o.sameSettings(r, v)
		} else {
			first[v.Group] = v
		}
	}
}

// sameSettings refuses what v has otherwise than o, the first of its group.
func (o Volume) sameSettings(r *report, v Volume) {
	differ := func(same bool, at pos, key string, wants any) {
		if !same {
			r.add(at, "differs within its group", fmt.Sprintf("volume %q in line %d is of group %q too and has %s %v: all volumes of a group have the same", o.Name, o.at.line, o.Group, key, shown(wants)))
		}
	}
	differ(v.Mode == o.Mode, v.modeAt, "mode", o.Mode)
	for _, rep := range v.Replicas {
		if of, ok := o.Replica(rep.Node); ok {
			differ(v.ModeOf(rep) == o.ModeOf(of), rep.modeAt, "on "+rep.Node+" mode", o.ModeOf(of))
			differ(rep.Via == of.Via, rep.viaAt, "on "+rep.Node+" via", orDirectly(of.Via))
		}
	}
	differ(v.IO == o.IO, v.ioAt, "io", o.IO)
	differ(v.SuspendLimit == o.SuspendLimit, v.suspendAt, "suspend_limit", o.SuspendLimit)
	differ(v.Read == o.Read, v.readAt, "read", o.ReadText())
	differ(v.SiteFailover == o.SiteFailover, v.at, "site_failover", siteFailoverText(o.SiteFailover))
	differ(v.UndoLimit == o.UndoLimit, v.undoAt, "undo_limit", undoText(o.UndoLimit))
	differ(v.Async == o.Async, v.asyncAt.bytes, "async", o.Async)
	differ(v.Verify == o.Verify, v.verifyAt, "verify", o.Verify)
	differ(v.Resync == o.Resync, v.resyncAt, "resync", o.Resync)
	nodes := func(v Volume) string {
		var names []string
		for _, rep := range v.Replicas {
			names = append(names, rep.Node)
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	differ(nodes(v) == nodes(o), v.at, "replicas on", nodes(o))
}

// groups refuses what would change which volumes a group has: the order of its writes is that of all of them from its creation on.
func (p *plan) groups(old, next *Config) {
	const create = "create a new one, copy, and remove the old one"
	for _, v := range next.Volumes {
		o, was := old.Volume(v.Name)
		_, runs := old.Mirror(v.Group)
		switch {
		case was && o.Group != v.Group:
			p.add(StepRefused, v.groupAt, "volume "+v.Name+": group", "%v -> %v: a volume is taken into a group, or out of it, by none of its commands yet: %s", shown(o.Group), shown(v.Group), create)
		case was && v.Group != "" && v.Size != o.Size:
			p.add(StepRefused, v.sizeAt, "volume "+v.Name+": size", "%s -> %s: the volumes of a group keep their sizes, not supported yet otherwise: %s", bytesText(o.Size), bytesText(v.Size), create)
		case !was && v.Group != "" && runs:
			p.add(StepRefused, v.groupAt, "volume "+v.Name+": group", "%s is in use and takes no further volume yet: create a new group with all of them, copy, and remove the old one", v.Group)
		case !was && v.Group == "" && runsAs(old, v.Name):
			p.add(StepRefused, v.at, "volume "+v.Name, "a group has this name: use another one, or remove the group before")
		}
	}
	for _, o := range old.Volumes {
		if _, stays := next.Volume(o.Name); stays || o.Group == "" {
			continue
		}
		if m, ok := next.Mirror(o.Group); ok {
			p.add(StepRefused, m.groupAt, "volume "+o.Name, "it is part of group %s, of which others stay: a group is removed as a whole, with all of its volumes in one change", o.Group)
		}
	}
}

// runsAs reports whether a volume or group of this name is mirrored.
func runsAs(c *Config, name string) bool {
	_, ok := c.Mirror(name)
	return ok
}

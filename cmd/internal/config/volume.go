package config

import (
	"cmp"
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/cmd/internal/schedule"
)

// Defaults of the volume block.
const (
	defaultSuspendLimit = "60s"
	defaultMaxLagBytes  = "64MiB"
	defaultMaxLag       = "5s"
	defaultPatience     = "10s"

	maxVolumes = 1024

	// minUndoLimit has room for the largest group of an undo area: with less, a resync would lose its way back at once.
	minUndoLimit = 8 << 20
	defaultRate  = "none" // no size: zero, whose meaning is that of resync.Limits
)

// volumeView is a volume with what the node in scope exports of it.
type volumeView struct {
	Volume
	export Export
}

func (r *reader) volumes(root *body, nodes []Node) []volumeView {
	var out []volumeView
	first := map[string]int{}
	for i, b := range root.blocks(true, "volume") {
		if i == maxVolumes {
			r.add(b.at, "too many volumes", fmt.Sprintf("at most %d are wanted", maxVolumes))
			break
		}
		if line, twice := first[b.label]; twice {
			r.add(b.at, "duplicate volume", fmt.Sprintf("another name is wanted, this one stands in line %d", line))
			continue
		}
		first[b.label] = b.at.line
		out = append(out, r.volume(b, nodes))
	}
	return out
}

func (r *reader) volume(b *body, nodes []Node) volumeView {
	defer b.finish()
	if !nameForm.MatchString(b.label) {
		r.add(b.at, "unusable name", wantName)
	}
	b.vars = b.vars.with(volumeScope(b.label))
	v := Volume{Name: b.label, at: b.at}
	v.Size = b.size("size", "")
	mode, modeAt := b.choice("mode", string(ModeSync), string(ModeSemisync), string(ModeAsync))
	io, _ := b.choice("io", string(IOAuto), string(IOBuffered), string(IODirect))
	v.Mode, v.IO, v.modeAt, v.sizeAt, v.ioAt, v.suspendAt, v.undoAt = Mode(mode), IO(io), modeAt, b.posOfKey("size"), b.posOfKey("io"), b.posOfKey("suspend_limit"), b.posOfKey("undo_limit")
	v.SuspendLimit = b.duration("suspend_limit", defaultSuspendLimit)
	read, readAt := b.choice("read", string(ReadLocal), string(ReadBalance))
	if v.readAt = readAt; Read(read) != ReadLocal {
		v.Read = Read(read)
	}
	v.UndoLimit = b.undoLimit()
	sites, _ := b.choice("site_failover", siteManual, siteAuto)
	v.SiteFailover = sites == siteAuto
	v.Group, v.groupAt = b.group()
	v.Replicas = r.replicas(b, nodes)
	v.Async, v.asyncAt = r.async(b)
	v.Verify, v.verifyAt = r.verify(b)
	v.Resync, v.resyncAt = r.resync(b)
	return volumeView{Volume: v, export: r.export(b)}
}

// ReadText is who answers reads, as the file says it.
func (v Volume) ReadText() string { return string(cmp.Or(v.Read, ReadLocal)) }

// undoLimit reads the optional bound of undo areas; 0 when the file has none.
func (b *body) undoLimit() int64 {
	if b.attr("undo_limit") == nil {
		return 0
	}
	n := b.size("undo_limit", bytesText(minUndoLimit))
	if n > 0 && n < minUndoLimit {
		b.r.add(b.posOfKey("undo_limit"), "too small", fmt.Sprintf("%s or more is wanted: with less, no resync would have a way back. Leave it out for as much as the whole volume takes", bytesText(minUndoLimit)))
	}
	return n
}

// replicas reads the replica blocks, each in the scope of its own node.
func (r *reader) replicas(volume *body, nodes []Node) []Replica {
	var out []Replica
	first := map[string]int{}
	for _, b := range volume.blocks(true, "replica") {
		if line, twice := first[b.label]; twice {
			r.add(b.at, "duplicate replica", fmt.Sprintf("one for each node is wanted, this node's stands in line %d", line))
			continue
		}
		first[b.label] = b.at.line
		out = append(out, r.replica(b, nodes))
	}
	if len(out) == 0 {
		r.add(volume.at, "no replica", `it needs some: replica "node" { device = "/dev/vg0/name" }`)
	}
	return out
}

func (r *reader) replica(b *body, nodes []Node) Replica {
	defer b.finish()
	if n, ok := findNode(nodes, b.label); !ok {
		r.add(b.at, "unknown node", "one of these is wanted: "+known(nodeNames(nodes)))
		b.vars = b.vars.with(nodeScope(Node{Name: b.label}))
	} else {
		if n.Role == RoleWitness {
			r.add(b.at, "replica on a witness", n.Name+` holds no data: another node is wanted, or the role "data" for it`)
		}
		b.vars = b.vars.with(nodeScope(n))
	}
	b.refuse("size", "size of a replica", "all replicas have the size of the volume: leave it out here")
	device := b.need("device", "/dev/vg0/name")
	if device.set {
		if want := badPath(device.s); want != "" {
			r.addValue(device, "unusable path", want)
		}
	}
	mode, modeAt := "", b.at
	if b.attr("mode") != nil {
		mode, modeAt = b.choice("mode", string(ModeSync), string(ModeSemisync), string(ModeAsync))
	}
	via := b.str("via", "beta")
	return Replica{Node: b.label, Device: device.s, Mode: Mode(mode), Via: via.s, at: b.at, deviceAt: device.at, modeAt: modeAt, viaAt: via.at}
}

func (r *reader) export(volume *body) Export {
	e := Export{Attach: AttachAuto, at: volume.at}
	b := volume.one(false, "export")
	if b == nil {
		return e
	}
	defer b.finish()
	for _, v := range b.strs("nbd", "unix:///run/hacluster/name.sock") {
		l, want := parseListener(v.s)
		if want != "" {
			r.addValue(v, "unusable listener", want)
			continue
		}
		l.at = v.at
		e.NBD = append(e.NBD, l)
	}
	attach, at := b.choice("attach", string(AttachAuto), string(AttachUblk), string(AttachNBD), string(AttachFUSE),
		string(AttachNone))
	e.Attach, e.at = Attach(attach), at
	return e
}

// verify reads when the replicas are compared by themselves.
func (r *reader) verify(volume *body) (v Verify, at pos) {
	b := volume.one(false, "verify")
	if b == nil {
		return v, volume.at
	}
	defer b.finish()
	text := b.need("schedule", "30 2 * * 0")
	if text.set {
		s, err := schedule.Parse(text.s)
		if err != nil {
			r.addValue(text, "unusable schedule", err.Error()+": "+schedule.Want)
		}
		v.Schedule = s
	}
	v.Repair = b.truth("repair")
	return v, b.at
}

// String is a schedule as plans show it; empty: none.
func (v Verify) String() string {
	switch {
	case v.Schedule == "":
		return ""
	case v.Repair:
		return fmt.Sprintf("%q with repair", string(v.Schedule))
	}
	return fmt.Sprintf("%q", string(v.Schedule))
}

// resync reads what resyncs may take.
func (r *reader) resync(volume *body) (Resync, pos) {
	b := volume.one(false, "resync")
	if b == nil {
		return Resync{}, volume.at
	}
	defer b.finish()
	s := Resync{MinRate: b.size("min_rate", defaultRate), MaxRate: b.size("max_rate", defaultRate)}
	if s.MaxRate > 0 && s.MaxRate < s.MinRate {
		r.add(b.posOfKey("max_rate"), "max_rate below min_rate", fmt.Sprintf("at least %s is wanted", bytesText(s.MinRate)))
	}
	return s, b.at
}

// size reads a size in blocks of 4096 bytes. Without a default the key must be there.
func (b *body) size(key, otherwise string) int64 {
	v := b.str(key, "20GiB")
	if b.hcl.Attributes[key] == nil && otherwise == "" {
		b.r.add(b.at, "missing key "+key, fmt.Sprintf("it needs one such as %s = %q", key, "20GiB"))
	}
	if !v.set {
		bytes, _ := ParseSize(otherwise)
		return bytes
	}
	bytes, ok := ParseSize(v.s)
	switch {
	case !ok:
		what, want := whyNoSize(v.s)
		b.r.addValue(v, what, want)
	case bytes%blockdev.BlockSize != 0:
		b.r.add(v.at, "not a whole number of blocks", wholeBlocks(bytes))
	}
	return bytes
}

func (b *body) duration(key, otherwise string) time.Duration {
	fallback, _ := parseDuration(otherwise)
	v := b.str(key, otherwise)
	if !v.set {
		return fallback
	}
	d, ok := parseDuration(v.s)
	if !ok {
		b.r.addValue(v, "not a duration", wantDuration)
		return fallback
	}
	return d
}

// posOfKey is where a key stands, or its block when it is absent.
func (b *body) posOfKey(key string) pos {
	if a := b.hcl.Attributes[key]; a != nil {
		return b.posOf(a)
	}
	return b.at
}

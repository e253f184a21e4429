package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	fsForm        = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	interfaceForm = regexp.MustCompile(`^[^\s/]{1,15}$`)
	unitForm      = regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(service|socket|target|mount|timer|path|slice)$`)
)

func (r *reader) services(root *body, volumes []volumeView) []Service {
	var out []Service
	first, taken := map[string]int{}, map[string]int{}
	for _, b := range root.blocks(true, "service") {
		if line, twice := first[b.label]; twice {
			r.add(b.at, "duplicate service", fmt.Sprintf("another name is wanted, this one stands in line %d", line))
			continue
		}
		first[b.label] = b.at.line
		s := r.service(b, volumes)
		for _, res := range s.Resources { // what a machine has once follows one volume
			key := res.Kind + " " + res.Name
			if line, twice := taken[key]; twice && res.Kind != "exec" {
				r.add(res.at, "part of two services", fmt.Sprintf("the service in line %d has it already", line))
			}
			taken[key] = b.at.line
		}
		out = append(out, s)
	}
	return out
}

func (r *reader) service(b *body, volumes []volumeView) Service {
	defer b.finish()
	s := Service{Name: b.label, at: b.at}
	if !nameForm.MatchString(s.Name) {
		r.add(b.at, "unusable name", wantName)
	}
	for _, v := range b.strs("volumes", "pgdata") {
		r.checkServiceVolume(v, s.Volumes, volumes)
		s.Volumes = append(s.Volumes, v.s)
	}
	if len(s.Volumes) == 0 {
		r.add(b.at, "service without a volume", `a service follows one: volumes = ["name"]`)
	}
	first := map[string]int{}
	s.Restarts, _ = b.number("restarts", defaultRestarts)
	s.RestartWindow = b.duration("restart_window", defaultRestartWindow)
	for _, inner := range b.blocks(true, "mount", "address", "systemd", "exec") {
		res := r.resource(inner, s.Volumes)
		if line, twice := first[res.Kind+" "+res.Name]; twice {
			r.add(inner.at, "duplicate block", fmt.Sprintf("the one in line %d is enough", line))
			continue
		}
		first[res.Kind+" "+res.Name] = inner.at.line
		s.Resources = append(s.Resources, res)
	}
	return s
}

func (r *reader) checkServiceVolume(v value, before []string, volumes []volumeView) {
	if !slices.ContainsFunc(volumes, func(have volumeView) bool { return have.Name == v.s }) {
		r.add(v.at, "unknown volume", "one of these is wanted: "+known(volumeNames(volumes)))
	}
	if slices.Contains(before, v.s) {
		r.add(v.at, "duplicate volume", "each volume stands once")
	}
}

// resource reads one step of a service.
func (r *reader) resource(b *body, volumes []string) Resource {
	defer b.finish()
	res := Resource{Kind: b.kind, Name: b.label, at: b.at}
	r.times(b, &res)
	switch res.Kind {
	case "exec":
		r.exec(b, &res)
	case "mount":
		r.mount(b, &res, volumes)
	case "address":
		r.address(b, &res)
	case "systemd":
		if !unitForm.MatchString(b.label) {
			r.add(b.at, "unusable unit name", `a whole one is wanted, such as "postgresql.service"`)
		}
	}
	return res
}

// What a service has that its block does not set.
const (
	defaultRestarts      = 3
	defaultRestartWindow = "10m"
)

// times reads how long the operations of a resource may take. An address needs no time worth setting, and a mount is the kernel's.
func (r *reader) times(b *body, res *Resource) {
	if b.kind != "systemd" && b.kind != "exec" {
		res.StartTimeout, res.StopTimeout, res.MonitorTimeout, res.Interval = 10*time.Second, 5*time.Second, 5*time.Second, 5*time.Second
		return
	}
	res.StartTimeout = b.duration("start_timeout", "60s")
	res.StopTimeout = b.duration("stop_timeout", "30s")
	res.MonitorTimeout = b.duration("monitor_timeout", "10s")
	res.Interval = b.duration("interval", "10s")
}

// exec reads programs with their arguments; no shell sees them.
func (r *reader) exec(b *body, res *Resource) {
	if !nameForm.MatchString(b.label) {
		r.add(b.at, "unusable name", wantName)
	}
	argv := func(key string) (out []string) {
		for i, v := range b.strs(key, "/usr/local/bin/shop") {
			if i == 0 && !strings.HasPrefix(v.s, "/") {
				r.add(v.at, "unusable program", `its whole path is wanted, such as "/bin/sh"`)
			}
			out = append(out, v.s)
		}
		return out
	}
	res.Run, res.Start, res.Stop, res.Monitor = argv("run"), argv("start"), argv("stop"), argv("monitor")
	if (len(res.Run) == 0) == (len(res.Start) == 0) {
		r.add(b.at, "run and start", "either is wanted: run stays in the foreground, start returns when the service is up")
	}
	if len(res.Run) == 0 && len(res.Monitor) == 0 {
		res.Interval = 0 // there is nothing to ask
	}
}

// Same reports whether o is defined alike; where it stands in the file does not count.
func (s Service) Same(o Service) bool {
	bare := func(s Service) Service {
		s.at, s.Resources = pos{}, slices.Clone(s.Resources)
		for i := range s.Resources {
			s.Resources[i].at = pos{}
		}
		return s
	}
	return reflect.DeepEqual(bare(s), bare(o))
}

func (r *reader) mount(b *body, res *Resource, volumes []string) {
	if want := badPath(b.label); want != "" {
		r.add(b.at, "unusable path", want)
	}
	volume := b.need("volume", "pgdata")
	if volume.set && !slices.Contains(volumes, volume.s) {
		r.add(volume.at, "volume of another service", "one of this service's volumes is wanted: "+known(volumes))
	}
	b.vars = b.vars.with(volumeScope(volume.s))
	fs := b.need("fs", "ext4")
	if fs.set && !fsForm.MatchString(fs.s) {
		r.add(fs.at, "unusable file system", `its name is wanted, such as "ext4" or "xfs"`)
	}
	res.Volume, res.FS = volume.s, fs.s
}

func (r *reader) address(b *body, res *Resource) {
	prefix, err := netip.ParsePrefix(b.label)
	switch {
	case err != nil:
		r.add(b.at, "unusable address", `an address with its prefix length is wanted, such as "10.0.0.100/24"`)
	case badIP(prefix.Addr()) != "":
		r.add(b.at, "unusable address", badIP(prefix.Addr()))
	}
	name := b.need("interface", "eth0")
	if name.set && !interfaceForm.MatchString(name.s) {
		r.add(name.at, "unusable interface", `the name of a network interface is wanted, such as "eth0"`)
	}
	res.Interface = name.s
}

package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// grouped is a file with the group "pg" of the volumes data and wal, beside pgdata; more goes into the block of wal.
func grouped(t *testing.T, more string) string {
	t.Helper()
	block := func(name, size, more string) string {
		return fmt.Sprintf("volume %q {\n  size = %q\n  group = \"pg\"\n  mode = \"async\"\n  replica \"alpha\" { device = \"/srv/alpha/%[1]s.img\" }\n  replica \"beta\" { device = \"/srv/beta/%[1]s.img\" }\n%[3]s}\n", name, size, more)
	}
	return loopback(t) + block("data", "2MiB", "") + block("wal", "1MiB", more)
}

func TestAGroupIsMirroredAsOne(t *testing.T) {
	c := running(t, grouped(t, ""))
	all := c.Mirrors()
	if len(all) != 2 || all[0].Name != "pgdata" || len(all[0].Parts) != 0 || all[1].Name != "pg" {
		t.Fatalf("%+v", all)
	}
	m := all[1]
	if m.Size != 3<<20 || m.Mode != ModeAsync || len(m.Parts) != 2 || m.Parts[0].Name != "data" || m.Parts[1].Name != "wal" {
		t.Errorf("the group: %+v", m)
	}
	if len(m.Replicas) != 2 || m.Replicas[0].Device != "" || m.Parts[1].Replicas[1].Device != "/srv/beta/wal.img" {
		t.Errorf("a group has no device of its own, its volumes have: %+v", m.Replicas)
	}
	for _, v := range all {
		if got, ok := c.Mirror(v.Name); !ok || !reflect.DeepEqual(got, v) {
			t.Errorf("%s: %+v, %t", v.Name, got, ok)
		}
	}
	if _, ok := c.Mirror("data"); ok {
		t.Error("a volume of a group is mirrored by itself")
	}
	for volume, want := range map[string]string{"pgdata": "pgdata", "data": "pg", "wal": "pg"} {
		if got := c.Mirrored(volume); got != want {
			t.Errorf("%s is mirrored as %s, want %s", volume, got, want)
		}
	}
	if without := running(t, strings.ReplaceAll(grouped(t, ""), "  group = \"pg\"\n", "")); without.Hash() == c.Hash() {
		t.Error("the hash does not tell of a group")
	}
}

func TestVolumesOfAGroupHaveTheSameSettings(t *testing.T) {
	src := grouped(t, "")
	const data = `volume "data" in line 40 is of group "pg" too and has `
	swap := func(old, new string) string { // in the block of wal
		i := strings.Index(src, `volume "wal"`)
		return src[:i] + changed(t, src[i:], old, new)
	}
	for name, c := range map[string]struct{ src, want string }{
		"mode of a replica":        {swap(`{ device = "/srv/beta/wal.img" }`, "{\n    device = \"/srv/beta/wal.img\"\n    mode = \"sync\"\n  }"), "cluster.hcl:54: differs within its group, mode = \"sync\", " + data + "on beta mode async"},
		"mode":                     {swap(`mode = "async"`, `mode = "sync"`), `cluster.hcl:50: differs within its group, mode = "sync", ` + data + `mode async`},
		"io":                       {grouped(t, "  io = \"direct\"\n"), `cluster.hcl:53: differs within its group, io = "direct", ` + data + `io auto`},
		"suspend_limit":            {grouped(t, "  suspend_limit = \"9s\"\n"), data + "suspend_limit 1m0s"},
		"undo_limit":               {grouped(t, "  undo_limit = \"16MiB\"\n"), data + "undo_limit none"},
		"async":                    {grouped(t, "  async { max_lag = \"9s\" }\n"), data + "async max_lag_bytes 64MiB, max_lag 5s"},
		"verify":                   {grouped(t, "  verify { schedule = \"1 2 * * *\" }\n"), data + "verify none"},
		"resync":                   {grouped(t, "  resync { min_rate = \"1MiB\" }\n"), data + "resync"},
		"nodes":                    {swap(`  replica "beta" { device = "/srv/beta/wal.img" }`+"\n", ""), data + "replicas on alpha beta"},
		"the same device":          {swap(`/srv/beta/wal.img`, `/srv/beta/data.img`), "device used twice"},
		"a name that a volume has": {strings.ReplaceAll(src, `group = "pg"`, `group = "pgdata"`), "cluster.hcl:42: a group with the name of a volume, group = \"pgdata\", another name is wanted: the volume of that name stands in line 21"},
		"a name that is none":      {strings.ReplaceAll(src, `group = "pg"`, `group = "p/g"`), "unusable name"},
	} {
		_, err := check("/etc/hacluster/cluster.hcl", []byte(c.src), Options{})
		if !slices.ContainsFunc(linesOf(t, err), func(l string) bool { return strings.Contains(l, c.want) }) {
			t.Errorf("%s: no line has %q:\n%s", name, c.want, strings.Join(linesOf(t, err), "\n"))
		}
	}
}

// What a group has is fixed by its creation: each other change is refused, with the line and what to do.
func TestPlanKeepsAGroupAsItIs(t *testing.T) {
	src := grouped(t, "")
	i := strings.Index(src, `volume "wal"`)
	alone := strings.Replace(src[:i], "  group = \"pg\"\n", "", 1)
	third := strings.ReplaceAll(src[i:], "wal", "third")
	for _, c := range []struct{ name, old, next, want string }{
		{"out of it", src, src[:i] + strings.Replace(src[i:], "  group = \"pg\"\n", "", 1), "refused|volume wal: group|pg -> none"},
		{"into it", alone + src[i:], src, "refused|volume data: group|none -> pg"},
		{"one more", src, src + third, `refused|volume third: group|pg is in use`},
		{"one less", src, src[:i], "refused|volume wal|it is part of group pg, of which others stay"},
		{"larger", src, strings.Replace(src, `"1MiB"`, `"9MiB"`, 1), "refused|volume wal: size|1MiB -> 9MiB: the volumes of a group keep their sizes"},
		{"a volume of its name", src, loopback(t) + strings.ReplaceAll(second, "logs", "pg"), "refused|volume pg|a group has this name"},
		{"a group of a volume's name", loopback(t) + strings.ReplaceAll(second, "logs", "pg"), src, `refused|volume data: group|pg is in use`},
	} {
		plan := running(t, c.old).Plan(running(t, c.next))
		if !slices.ContainsFunc(plan, func(s Step) bool {
			return strings.HasPrefix(fmt.Sprintf("%s|%s|%s", s.Kind, s.What, s.Text), c.want) && s.Line > 0
		}) {
			t.Errorf("%s: no step is %q: %+v", c.name, c.want, plan)
		}
	}
	for _, c := range []struct{ name, old, next string }{
		{"it comes", loopback(t), src}, {"it goes", src, loopback(t)},
		{"another mode", src, strings.ReplaceAll(src, `"async"`, `"sync"`)},
	} {
		if plan := running(t, c.old).Plan(running(t, c.next)); len(plan) == 0 || len(Refused(plan)) > 0 {
			t.Errorf("%s: %+v", c.name, plan)
		}
	}
}

func TestAServiceFollowsSeveralVolumesOfOneGroupOnly(t *testing.T) {
	service := func(volumes string) string {
		return grouped(t, "") + "service \"db\" {\n  volumes = [" + volumes + "]\n  exec \"x\" { run = [\"/bin/sh\"] }\n}\n"
	}
	if no := running(t, service(`"data", "wal"`)).unsupported(); len(no) > 0 {
		t.Errorf("of one group: %v", no)
	}
	for _, volumes := range []string{`"data", "pgdata"`, `"pgdata", "wal", "data"`} {
		if no := running(t, service(volumes)).unsupported(); len(no) != 1 || !strings.Contains(no[0].Want, "several of one group") {
			t.Errorf("%s: %v", volumes, no)
		}
	}
}

// Volumes of one group have one primary, so a service may come to follow more, fewer, or others of them.
func TestAServiceChangesItsVolumesWithinTheirGroup(t *testing.T) {
	with := func(volumes string) string {
		return grouped(t, "") + "service \"db\" {\n  volumes = [" + volumes + "]\n  systemd \"x.service\" {}\n}\n"
	}
	for _, c := range []struct {
		from, to string
		refused  bool
	}{
		{`"data"`, `"data", "wal"`, false},
		{`"data", "wal"`, `"wal"`, false},
		{`"data", "wal"`, `"wal", "data"`, false},
		{`"data"`, `"pgdata"`, true},
		{`"pgdata"`, `"data", "wal"`, true},
	} {
		plan := running(t, with(c.from)).Plan(running(t, with(c.to)))
		refused := slices.ContainsFunc(plan, func(s Step) bool { return s.Kind == StepRefused })
		if refused != c.refused || len(plan) == 0 {
			t.Errorf("from %s to %s: %+v", c.from, c.to, plan)
		}
	}
}

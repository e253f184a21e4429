package config

import (
	"bytes"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hacluster/replication/resync"
)

// running is a configuration as the cluster runs it.
func running(t *testing.T, src string) *Config {
	t.Helper()
	rep, err := check("cluster.hcl", []byte(src), Options{Node: "alpha", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	return rep.Config
}

func limits(t *testing.T, src, block string) string {
	return changed(t, src, "  disk_deadline = \"5s\"\n", "  disk_deadline = \"5s\"\n  limits {\n"+block+"\n  }\n")
}

// heartbeats is how a plan tells of Raft's.
func heartbeats(from, to string) string {
	of := func(s string) string {
		rto, _ := time.ParseDuration(s)
		return ms(derive(rto).RaftHeartbeat)
	}
	return of(from) + " -> " + of(to)
}

const second = `volume "logs" {
  size = "1MiB"
  replica "alpha" { device = "/srv/alpha/logs.img" }
  replica "beta" { device = "/srv/beta/logs.img" }
}
`

// faults.md C81: what cannot be changed in a running cluster is refused, with the line.
func TestC81PlanTellsWhatEachDifferenceMeans(t *testing.T) {
	src := loopback(t)
	for _, c := range []struct {
		name, next string
		want       []string // kind, what, and a part of the text
	}{
		{"nothing", "# a comment\n" + src, nil},
		{"rto a little", changed(t, src, `"3s"`, `"4s"`), []string{"change online|rto|3s -> 4s: lease 1260ms -> 1680ms"}},
		{"rto by much", changed(t, src, `"3s"`, `"60s"`), []string{"change online|rto|3s -> 1m0s", "needs restart|rto|heartbeat " + heartbeats("3s", "60s")}},
		{"rto shorter by much", changed(t, src, `"3s"`, `"1s"`), []string{"change online|rto|3s -> 1s", "needs restart|rto|heartbeat " + heartbeats("3s", "1s")}},
		{"disk deadline", changed(t, src, `"5s"`, `"6s"`), []string{"change online|disk_deadline|5s -> 6s"}},
		{"resync", changed(t, src, `suspend_limit = "60s"`, "resync { max_rate = \"80MiB\" }"), []string{"change online|volume pgdata: resync|min_rate 4MiB/s, max_rate no limit -> min_rate 4MiB/s, max_rate 80MiB/s"}},
		{"resync below the usual least", changed(t, src, `suspend_limit = "60s"`, "resync { max_rate = \"1MiB\" }"), []string{"change online|volume pgdata: resync|min_rate 4MiB/s, max_rate no limit -> min_rate 1MiB/s, max_rate 1MiB/s"}},
		{"suspend limit", changed(t, src, `"60s"`, `"61s"`), []string{"change online|volume pgdata: suspend_limit|1m0s -> 1m1s"}},
		{"who reads", changed(t, src, `suspend_limit = "60s"`, `read = "balance"`), []string{"change online|volume pgdata: read|local -> balance"}},
		{"a site", changed(t, src, `role    = "witness"`, "role = \"witness\"\n  site = \"far\""), []string{"change online|node gamma: site|none -> far: from the next failover on"}},
		{"moves between sites", changed(t, src, `suspend_limit = "60s"`, `site_failover = "auto"`), []string{"change online|volume pgdata: site_failover|manual -> auto: from the next failover on"}},
		{"undo limit", changed(t, src, `suspend_limit = "60s"`, `undo_limit = "10GiB"`), []string{"needs restart|volume pgdata: undo_limit|none -> 10GiB: when haclusterd is started anew"}},
		{"a schedule", changed(t, src, "  async {", "  verify { schedule = \"30 2 * * sun\" }\n  async {"), []string{`change online|volume pgdata: verify|none -> "30 2 * * SUN": from the next minute on`}},
		{"repair", changed(t, src, "  async {", "  verify {\n    schedule = \"30 2 * * 0\"\n    repair = true\n  }\n  async {"), []string{`change online|volume pgdata: verify|none -> "30 2 * * 0" with repair`}},
		{"async", changed(t, src, `max_lag       = "5s"`, `max_lag = "6s"`), []string{"change online|volume pgdata: async|max_lag_bytes 64MiB, max_lag 5s, patience 10s -> max_lag_bytes 64MiB, max_lag 6s, patience 10s: it counts in async mode only"}},
		{"a listener less and one more", changed(t, src, "10809", "10810"), []string{
			"change online|volume pgdata: replica alpha: nbd|tcp://127.0.0.1:10810 is listened on", "change online|volume pgdata: replica alpha: nbd|tcp://127.0.0.1:10809 is closed",
			"change online|volume pgdata: replica beta: nbd|tcp://127.0.0.2:10810 is listened on", "change online|volume pgdata: replica beta: nbd|tcp://127.0.0.2:10809 is closed"}},
		{"io", changed(t, src, `"auto"`, `"direct"`), []string{"needs restart|volume pgdata: io|auto -> direct"}},
		{"http", changed(t, src, "7480", "7481"), []string{"needs restart|node alpha: http|127.0.0.1:7480 -> 127.0.0.1:7481"}},
		{"limits", limits(t, src, "nbd_connections = 7\n node_handshake = \"6s\""), []string{"change online|limits: nbd_connections|256 -> 7", "needs restart|limits: node_handshake|5s -> 6s"}},
		{"a volume more", src + second, []string{"add volume|volume logs|1MiB, sync, on alpha /srv/alpha/logs.img and beta"}},
		{"a volume less", src[:strings.Index(src, "volume")], []string{"remove volume|volume pgdata|64MiB"}},
		{"another volume", changed(t, src, `volume "pgdata"`, `volume "other"`), []string{"add volume|volume other|", "remove volume|volume pgdata|"}},

		{"cluster", changed(t, src, `"lab"`, `"lab2"`), []string{"refused|cluster|lab -> lab2"}},
		{"a larger size", changed(t, src, `"64MiB"`, `"128MiB"`), []string{"change online|volume pgdata: size|64MiB -> 128MiB: every backing must hold it"}},
		{"a smaller size", changed(t, src, `"64MiB"`, `"32MiB"`), []string{"shrink volume|volume pgdata: size|64MiB -> 32MiB: its last 32MiB are lost: make what is on it smaller first"}},
		{"mode", changed(t, src, `"sync"`, `"async"`), []string{"change online|volume pgdata: mode|sync -> async: the role stays and no client is cut off"}},
		{"mode of a replica", changed(t, src, "  replica \"beta\" {", "  replica \"beta\" {\n    mode = \"async\""), []string{"change online|volume pgdata: replica beta: mode|the volume's -> async: the role stays and no client is cut off"}},
		{"semisync", changed(t, src, `"sync"`, `"semisync"`), []string{"change online|volume pgdata: mode|sync -> semisync: the role stays and no client is cut off"}},
		{"address", changed(t, src, "127.0.0.2:7400", "127.0.0.2:7499"), []string{"refused|node beta: address|127.0.0.2:7400 -> 127.0.0.2:7499"}},
		{"links", changed(t, src, "127.0.1.2:7401", "127.0.1.2:7402"), []string{"refused|node beta: links|"}},
		{"data_dir", changed(t, src, "/var/lib/hacluster/", "/var/lib/h/"), []string{"refused|node alpha: data_dir|", "refused|node beta: data_dir|", "refused|node gamma: data_dir|"}},
		{"attach_dir", changed(t, src, "cluster \"lab\" {", "cluster \"lab\" {\n  attach_dir = \"/dev/${node.name}\""), []string{"needs restart|node alpha: attach_dir|/dev/hacluster -> /dev/alpha", "needs restart|node beta: attach_dir|", "needs restart|node gamma: attach_dir|"}},
		{"device", changed(t, src, "device = \"/srv/${node.name}/${volume.name}.img\"\n", "device = \"/srv/b.img\"\n"), []string{"refused|volume pgdata: replica beta: device|/srv/beta/pgdata.img -> /srv/b.img"}},
		{"a node more", src + "node \"delta\" {\n  address = \"127.0.0.4:7400\"\n}\n", []string{"refused|node delta|"}},
		{"a node less", changed(t, src, "node \"gamma\" {\n  role    = \"witness\"\n  address = \"127.0.0.3:7400\"\n}\n", ""), []string{"refused|node gamma|it is not in the file"}},
		{"a role", changed(t, src, "  role    = \"witness\"\n", ""), []string{"refused|node gamma: role|witness -> data"}},
		{"a replica elsewhere", changed(t, src, "  replica \"beta\" {\n    device = \"/srv/${node.name}/${volume.name}.img\"\n  }\n", ""), []string{"change online|volume pgdata: replica beta|removed: it leaves the in-sync set, handing the role over before if it is the primary; its data stays in /srv/beta/pgdata.img"}},
		{"a service", src + "service \"s\" {\n  volumes = [\"pgdata\"]\n  systemd \"a.service\" {}\n}\n", []string{"change online|service s|new: it is started where volume pgdata is primary"}},
		{"a fence", src + "fence \"alpha\" { agent = \"fence_x\" }\n", []string{"change online|fence alpha|none -> fence_x at level 1, timeout 1m0s, tries 2, delay 0s and up to 0s, 0 options, from the next attempt on"}},
		{"one by the way and one with consent", changed(t, changed(t, src, `"3s"`, `"4s"`), `"64MiB"`, `"32MiB"`), []string{"change online|rto|", "shrink volume|volume pgdata: size|"}},
	} {
		steps := running(t, src).Plan(running(t, c.next))
		for _, st := range steps {
			if st.Line == 0 && st.Kind != StepRemove {
				t.Errorf("%s: %v has no line", c.name, st)
			}
		}
		if !matches(steps, c.want) {
			t.Errorf("%s: planned %+v\nwant %q", c.name, steps, c.want)
		}
	}
}

// matches holds each step against kind|what|part of the text.
func matches(steps []Step, want []string) bool {
	return len(steps) == len(want) && !slices.ContainsFunc(steps, func(s Step) bool {
		return !slices.ContainsFunc(want, func(w string) bool {
			p := strings.SplitN(w, "|", 3)
			return p[0] == string(s.Kind) && p[1] == s.What && strings.Contains(s.Text, p[2])
		})
	})
}

func TestScheduleIsShownAndCanBeTakenAway(t *testing.T) {
	src := loopback(t)
	with := running(t, changed(t, src, "  async {", "  verify {\n    schedule = \" 30 2  * * 0\"\n    repair = true\n  }\n  async {"))
	v := with.Document().Volumes[0]
	if v.VerifySchedule != "30 2 * * 0" || !v.VerifyRepair || !strings.Contains(with.Document().Table(), `verify "30 2 * * 0" in UTC, repair true`) {
		t.Errorf("%+v\n%s", v, with.Document().Table())
	}
	without := running(t, src)
	if strings.Contains(without.Document().Table(), "verify") || with.Hash() == without.Hash() {
		t.Error(without.Document().Table())
	}
	if steps := with.Plan(without); !matches(steps, []string{`change online|volume pgdata: verify|"30 2 * * 0" with repair -> none`}) || steps[0].Line == 0 {
		t.Errorf("%+v", steps)
	}
}

// Every change that the hash sees is in the plan: nothing is applied in silence.
func TestNoDifferenceIsWithoutAStep(t *testing.T) {
	src := loopback(t)
	edits := []func(string) string{
		func(s string) string { return changed(t, s, `rto           = "3s"`, `rto = "5s"`) },
		func(s string) string { return changed(t, s, `suspend_limit = "60s"`, `suspend_limit = "9s"`) },
		func(s string) string { return changed(t, s, "  async {\n", "  undo_limit = \"1GiB\"\n  async {\n") },
		func(s string) string { return changed(t, s, `attach = "none"`, `attach = "auto"`) },
		func(s string) string { return changed(t, s, `patience      = "10s"`, `patience = "11s"`) },
		func(s string) string { return limits(t, s, "events = 500") },
		func(s string) string {
			return changed(t, s, "  async {", "  verify { schedule = \"0 4 * * *\" }\n  async {")
		},
		func(s string) string { return s + second },
		func(s string) string {
			return changed(t, s, `role    = "witness"`, "role = \"witness\"\n  site = \"far\"")
		},
		func(s string) string { return s + "link \"alpha\" \"beta\" { reserve = \"1%\" }\n" },
	}
	rnd := rand.New(rand.NewSource(1))
	for range 200 {
		next := src
		n := 0
		for _, e := range edits {
			if rnd.Intn(2) == 0 {
				next = e(next)
				n++
			}
		}
		a, b := running(t, src), running(t, next)
		steps := a.Plan(b)
		if (len(steps) == 0) != (a.Hash() == b.Hash()) || len(steps) < n || len(Refused(steps)) != 0 {
			t.Fatalf("%d edits, planned %+v", n, steps)
		}
		if !reflect.DeepEqual(steps, a.Plan(b)) || len(b.Plan(b)) != 0 {
			t.Fatal("the plan is not a function of the two")
		}
	}
}

func TestTextSurvivesPackingAndIsReadAnew(t *testing.T) {
	c := running(t, loopback(t))
	packed, err := c.Pack()
	if err != nil {
		t.Fatal(err)
	}
	src, err := Unpack(packed)
	if err != nil || !bytes.Equal(src, c.Source()) {
		t.Fatalf("%d bytes came back, %v", len(src), err)
	}
	again, unsupported, err := c.With("applied", src)
	if err != nil || len(unsupported) != 0 || again.Hash() != c.Hash() || again.Self != "alpha" {
		t.Fatalf("read anew: %v, %v", unsupported, err)
	}
	for _, bad := range [][]byte{nil, {1, 2, 3}, packed[:len(packed)/2]} {
		if _, err := Unpack(bad); err == nil {
			t.Errorf("%d damaged bytes were read", len(bad))
		}
	}
	if _, _, err := c.With("new.hcl", []byte("cluster {")); err == nil {
		t.Error("a damaged text was read")
	}
	noise := make([]byte, 2*MaxPacked)
	rand.New(rand.NewSource(1)).Read(noise)
	if _, err := (&Config{source: noise}).Pack(); err == nil || !strings.Contains(err.Error(), fmt.Sprint(MaxPacked)) {
		t.Errorf("too long a text: %v", err)
	}
}

func TestThousandVolumesCanBeApplied(t *testing.T) {
	var src strings.Builder
	src.WriteString(loopback(t))
	for i := range 1000 {
		src.WriteString(strings.ReplaceAll(strings.ReplaceAll(second, "logs", fmt.Sprintf("v%d", i)), "\"1MiB\"", fmt.Sprintf("\"%dMiB\"", i+1)))
	}
	packed, err := (&Config{source: []byte(src.String())}).Pack()
	if err != nil || len(packed) > MaxPacked/2 {
		t.Errorf("%d bytes, %v", len(packed), err)
	}
}

func TestLimitsHaveNamesRangesAndDefaults(t *testing.T) {
	src := loopback(t)
	if got := running(t, src).Cluster.Limits; got != DefaultLimits() {
		t.Errorf("without a block: %+v", got)
	}
	for _, d := range LimitTable() {
		if d.Default < d.Min || d.Default > d.Max || d.Effect == "" || d.Value(DefaultLimits()) != d.Default {
			t.Errorf("%+v", d)
		}
		text := func(v int64) string {
			if d.Unit == UnitCount {
				return fmt.Sprintf("%s = %d", d.Name, v)
			}
			return fmt.Sprintf("%s = %q", d.Name, d.Text(v))
		}
		if got := d.Value(running(t, limits(t, src, text(d.Min))).Cluster.Limits); got != d.Min {
			t.Errorf("%s: %d was read as %d", d.Name, d.Min, got)
		}
		for _, v := range []int64{d.Min - d.Min/2 - 1, d.Max * 2} {
			if v <= 0 {
				continue
			}
			if d.Unit == UnitBytes {
				v = max(v/4096*4096, 4096)
			}
			_, err := check("cluster.hcl", []byte(limits(t, src, text(v))), Options{})
			if err == nil || !strings.Contains(err.Error(), "out of range") || !strings.Contains(err.Error(), d.Text(d.Max)) {
				t.Errorf("%s: %v", text(v), err)
			}
		}
	}
	_, err := check("cluster.hcl", []byte(limits(t, src, "nbd_bytes = \"64MiB\"\nnbd_connection_bytes = \"128MiB\"\nwhat = 1")), Options{})
	if err == nil || !strings.Contains(err.Error(), "more for one connection than for all") || !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("contradiction: %v", err)
	}
}

func TestResyncShowsTheRatesThatAreInForce(t *testing.T) {
	if usualMinRate != resync.DefaultMin {
		t.Errorf("%d is shown, %d is what a resync does at least", usualMinRate, resync.DefaultMin)
	}
	for want, r := range map[string]Resync{
		"min_rate 4MiB/s, max_rate no limit": {},
		"min_rate 1MiB/s, max_rate 1MiB/s":   {MaxRate: 1 << 20},
		"min_rate 2MiB/s, max_rate 8MiB/s":   {MinRate: 2 << 20, MaxRate: 8 << 20},
	} {
		if got := r.String(); got != want {
			t.Errorf("%+v is shown as %q, want %q", r, got, want)
		}
	}
}

// R31: who is primary of one volume says nothing of who is of another, so what a machine has once does not change its volume at once.
func TestServiceDoesNotFollowAnotherVolumeAtOnce(t *testing.T) {
	src := loopback(t) + second
	on := func(name, volume, unit string) string {
		return "service \"" + name + "\" {\n  volumes = [\"" + volume + "\"]\n  systemd \"" + unit + "\" {}\n}\n"
	}
	old := running(t, src+on("s", "pgdata", "a.service"))
	for name, c := range map[string]struct{ next, want string }{
		"another volume":              {on("s", "logs", "a.service"), "refused|service s|it follows volume pgdata and would follow logs"},
		"its unit in another service": {on("s", "pgdata", "b.service") + on("t", "logs", "a.service"), `refused|service t|systemd "a.service" is part of service "s", which follows volume pgdata`},
		"a unit of its own":           {on("s", "pgdata", "a.service") + on("t", "logs", "b.service"), "change online|service t|new"},
	} {
		steps := old.Plan(running(t, src+c.next))
		if !slices.ContainsFunc(steps, func(s Step) bool { return matches([]Step{s}, []string{c.want}) }) {
			t.Errorf("%s: planned %+v, want %s", name, steps, c.want)
		}
	}
}

// Replicas come and go while the volume is served, and one thing at a time is decided about a volume.
func TestPlanOfReplicasThatComeAndGo(t *testing.T) {
	src := changed(t, loopback(t), "  role    = \"witness\"\n", "")
	beta := "  replica \"beta\" {\n    device = \"/srv/${node.name}/${volume.name}.img\"\n  }\n"
	with := changed(t, src, beta, beta+"  replica \"gamma\" { device = \"/srv/g.img\" }\n")
	for _, c := range []struct {
		name, from, to string
		want           []string
	}{
		{"one more", src, with, []string{"change online|volume pgdata: replica gamma|new, on /srv/g.img: it is resynced while the volume is served, and then in sync; an absent or sparse file is taken, one with content is not"}},
		{"one less", with, src, []string{"change online|volume pgdata: replica gamma|removed: it leaves the in-sync set, handing"}},
		{"one for another", src, changed(t, with, beta, ""), []string{"change online|volume pgdata: replica gamma|new, on", "change online|volume pgdata: replica beta|removed: it leaves the in-sync set (the last other one in sync when one that comes is)"}},
		{"with a mode of its own", src, changed(t, with, `{ device = "/srv/g.img" }`, "{\n    device = \"/srv/g.img\"\n    mode = \"async\"\n  }"), []string{"refused|volume pgdata: replica gamma|a replica is added with the mode of its volume"}},
		{"with another size", src, changed(t, with, `"64MiB"`, `"128MiB"`), []string{"refused|volume pgdata: replica gamma|the replicas of a volume are not changed together", "change online|volume pgdata: size|"}},
		{"less with another mode", with, changed(t, src, `"sync"`, `"semisync"`), []string{"refused|volume pgdata: replica gamma|the replicas of a volume are not changed together", "change online|volume pgdata: mode|"}},
	} {
		if steps := running(t, c.from).Plan(running(t, c.to)); !matches(steps, c.want) {
			t.Errorf("%s: planned %+v\nwant %q", c.name, steps, c.want)
		}
	}
}

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ignorePositions compares what the file means, not where it stands.
var ignorePositions = cmpopts.IgnoreUnexported(Config{}, Cluster{}, Node{}, Volume{}, Replica{}, Export{}, Listener{},
	Service{}, Resource{}, Fence{})

// write puts a source text into a file.
func write(t *testing.T, src string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cluster.hcl")
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, src string, o Options) *Config {
	t.Helper()
	c, err := Load(write(t, src), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSampleOfTheContractMeansWhatItSays(t *testing.T) {
	rep, err := Check("testdata/sample.hcl", Options{Node: "beta"})
	if err != nil {
		t.Fatal(err)
	}
	nbd := func(node string) Export {
		return Export{Attach: AttachAuto, NBD: []Listener{{Network: "unix", Address: "/run/hacluster/" + node + "-pgdata.sock"}}}
	}
	want := &Config{
		File: "testdata/sample.hcl", Self: "beta",
		Cluster: Cluster{Name: "shop", RTO: 3 * time.Second, DiskDeadline: 5 * time.Second, Limits: DefaultLimits()},
		Nodes: []Node{
			{Name: "alpha", Role: RoleData, Address: "10.0.0.1:7400", Links: []string{"10.0.0.1:7401", "192.168.7.1:7401"},
				HTTP: "127.0.0.1:7480", DataDir: "/var/lib/hacluster"},
			{Name: "beta", Role: RoleData, Address: "10.0.0.2:7400", Links: []string{"10.0.0.2:7401", "192.168.7.2:7401"}, DataDir: "/var/lib/hacluster"},
			{Name: "gamma", Role: RoleWitness, Address: "10.0.0.3:7400", Links: []string{"10.0.0.3:7401"}, DataDir: "/var/lib/hacluster"},
		},
		Volumes: []Volume{{
			Name: "pgdata", Size: 20 << 30, Mode: ModeSync, IO: IOAuto, SuspendLimit: time.Minute,
			Replicas: []Replica{
				{Node: "alpha", Device: "/dev/vg0/pgdata", Export: nbd("alpha")},
				{Node: "beta", Device: "/dev/vg0/pgdata", Export: nbd("beta")},
			},
			Async: Async{MaxLagBytes: 64 << 20, MaxLag: 5 * time.Second, Patience: 10 * time.Second},
		}},
		Services: []Service{{Name: "postgres", Volumes: []string{"pgdata"}, Resources: []Resource{
			{Kind: "mount", Name: "/srv/pg", Volume: "pgdata", FS: "ext4", StartTimeout: 10 * time.Second, StopTimeout: 5 * time.Second, MonitorTimeout: 5 * time.Second, Interval: 5 * time.Second},
			{Kind: "address", Name: "10.0.0.100/24", Interface: "eth0", StartTimeout: 10 * time.Second, StopTimeout: 5 * time.Second, MonitorTimeout: 5 * time.Second, Interval: 5 * time.Second},
			{Kind: "systemd", Name: "postgresql.service", StartTimeout: time.Minute, StopTimeout: 30 * time.Second, MonitorTimeout: 10 * time.Second, Interval: 10 * time.Second},
		}, Restarts: 3, RestartWindow: 10 * time.Minute}},
		Fences: []Fence{{Node: "alpha", Level: 1, Agent: "fence_ipmilan",
			Options: map[string]string{"ip": "10.9.0.1", "username": "admin", "password_file": "/etc/hacluster/ipmi.pw"}, Timeout: time.Minute, Tries: 2}},
		Timers: derive(3 * time.Second),
	}
	if diff := cmp.Diff(want, rep.Config, ignorePositions); diff != "" {
		t.Errorf("the sample means something else (-want +got):\n%s", diff)
	}
	if len(rep.Warnings) != 0 {
		t.Errorf("warnings: %v", rep.Warnings)
	}
}

func TestSampleIsNotSupportedYetInOnePlace(t *testing.T) {
	rep, err := Check("testdata/sample.hcl", Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`sample.hcl:42: not supported yet, mount "/srv/pg", a service cannot mount the local device: leave the block out: the daemon refuses to start with it`,
	}
	if diff := cmp.Diff(want, linesOf(t, rep.Unsupported)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, linesOf(t, rep.Config.Supported())); diff != "" {
		t.Errorf("Supported differs (-want +got):\n%s", diff)
	}
}

func TestVariablesAreThoseOfTheNodeThatReads(t *testing.T) {
	src := loopback(t)
	for node, dir := range map[string]string{"alpha": "/var/lib/hacluster/alpha", "gamma": "/var/lib/hacluster/gamma"} {
		c := load(t, src, Options{Node: node, Insecure: true})
		if c.Self != node || c.Me().Name != node {
			t.Errorf("read by %s: Self %q, Me %q", node, c.Self, c.Me().Name)
		}
		if c.DataDir() != dir || c.AdminSocket() != dir+"/admin.sock" {
			t.Errorf("read by %s: data_dir %s, socket %s, want %s", node, c.DataDir(), c.AdminSocket(), dir)
		}
	}
}

func TestVariablesInAReplicaAreThoseOfItsNode(t *testing.T) {
	c := load(t, loopback(t), Options{Node: "gamma", Insecure: true})
	v, _ := c.Volume("pgdata")
	for node, host := range map[string]string{"alpha": "127.0.0.1", "beta": "127.0.0.2"} {
		r, ok := v.Replica(node)
		if want := "/srv/" + node + "/pgdata.img"; !ok || r.Device != want {
			t.Errorf("device of %s is %q, want %q", node, r.Device, want)
		}
		want := []Listener{{Network: "unix", Address: "/run/hacluster/" + node + "-pgdata.sock"}, {Network: "tcp", Address: host + ":10809"}}
		if diff := cmp.Diff(want, r.Export.NBD, ignorePositions); diff != "" {
			t.Errorf("export of %s (-want +got):\n%s", node, diff)
		}
	}
}

func TestServiceIsEvaluatedForTheNodeThatReads(t *testing.T) {
	src := loopback(t) + `
service "web" {
  volumes = ["pgdata"]
  mount "/srv" {
    volume = "pgdata"
    fs     = "ext4"
  }
  address "10.0.0.100/24" { interface = "${node.name}0" }
}
`
	for _, node := range []string{"alpha", "beta"} {
		rep, err := check("cluster.hcl", []byte(src), Options{Node: node})
		if err != nil {
			t.Fatal(err)
		}
		if got := rep.Config.Services[0].Resources[1].Interface; got != node+"0" {
			t.Errorf("interface read by %s is %s", node, got)
		}
	}
}

func TestServiceOfCommands(t *testing.T) {
	src := loopback(t) + `
service "web" {
  volumes        = ["pgdata"]
  restarts       = 1
  restart_window = "1m"
  exec "server" {
    run             = ["/usr/bin/env", "-", "web ${node.name}"]
    monitor         = ["/bin/true"]
    start_timeout   = "1s"
    stop_timeout    = "2s"
    monitor_timeout = "3s"
    interval        = "4s"
  }
  exec "once" {
    start = ["/bin/true"]
    stop  = ["/bin/false"]
  }
  address "127.0.0.100/8" { interface = "lo" }
  systemd "a.service" {}
}
`
	c := load(t, src, Options{Node: "beta", Insecure: true})
	if err := c.Supported(); err != nil {
		t.Fatal(err)
	}
	s := c.Services[0]
	want := []Resource{
		{Kind: "exec", Name: "server", Run: []string{"/usr/bin/env", "-", "web beta"}, Monitor: []string{"/bin/true"},
			StartTimeout: time.Second, StopTimeout: 2 * time.Second, MonitorTimeout: 3 * time.Second, Interval: 4 * time.Second},
		{Kind: "exec", Name: "once", Start: []string{"/bin/true"}, Stop: []string{"/bin/false"},
			StartTimeout: time.Minute, StopTimeout: 30 * time.Second, MonitorTimeout: 10 * time.Second}, // nothing to ask it
	}
	if diff := cmp.Diff(want, s.Resources[:2], ignorePositions); diff != "" || s.Restarts != 1 || s.RestartWindow != time.Minute {
		t.Errorf("%d within %v, (-want +got):\n%s", s.Restarts, s.RestartWindow, diff)
	}
}

func TestServicesThatAreNotSupportedYet(t *testing.T) {
	service := "service \"s\" {\n  volumes = [\"pgdata\"]\n  systemd \"a.service\" {}\n}\n"
	for name, c := range map[string]struct{ src, want string }{
		"a target too short for a guard": {changed(t, loopback(t), `"3s"`, `"1500ms"`) + service, `a service needs rto = "2s" or more`},
		"a mount":                        {loopback(t) + changed(t, service, `systemd "a.service" {}`, "mount \"/srv\" {\n    volume = \"pgdata\"\n    fs = \"ext4\"\n  }"), `:42: not supported yet, mount "/srv"`},
	} {
		rep, err := check("cluster.hcl", []byte(c.src), Options{Node: "alpha"})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(linesOf(t, rep.Unsupported), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestLoadTakesDataDirOfTheCommandLine(t *testing.T) {
	c := load(t, loopback(t), Options{Node: "alpha", Insecure: true, DataDir: "/tmp/elsewhere"})
	if c.DataDir() != "/tmp/elsewhere" || c.AdminSocket() != "/tmp/elsewhere/admin.sock" {
		t.Errorf("data_dir %s, socket %s", c.DataDir(), c.AdminSocket())
	}
	if n := c.Me().DataDir; n != "/var/lib/hacluster/alpha" {
		t.Errorf("the file's own data_dir became %s", n)
	}
}

func TestLoadRefusesANodeThatIsNotInTheFile(t *testing.T) {
	_, err := Load(write(t, loopback(t)), Options{Node: "delta", Insecure: true})
	want := []string{"cluster.hcl: this node is not in the file, delta, name one of these with --node: alpha, beta, gamma"}
	if diff := cmp.Diff(want, linesOf(t, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadTakesLoopbackAddressesWithTLSToo(t *testing.T) {
	if c := load(t, loopback(t), Options{Node: "alpha", PKI: "/somewhere"}); c.Insecure || c.PKI != "/somewhere" {
		t.Errorf("insecure %v, pki %q", c.Insecure, c.PKI)
	}
}

func TestLoadRefusesInsecureBeyondLoopback(t *testing.T) {
	src := strings.NewReplacer("127.0.", "10.7.", `"127.0.0.1:7480"`, `"10.7.0.1:7480"`).Replace(loopback(t))
	_, err := Load(write(t, src), Options{Node: "alpha", Insecure: true})
	const why = "--insecure with an address that is no loopback address"
	var lines []int
	for _, l := range linesOf(t, err) {
		if strings.Contains(l, why) {
			lines = append(lines, len(lines))
		}
	}
	// Three addresses, four links, one http, and the export of two nodes.
	if len(lines) != 10 {
		t.Errorf("%d addresses are refused, want 10:\n%v", len(lines), err)
	}
	if !strings.Contains(err.Error(), "cluster.hcl:8: "+why+", address 10.7.0.1:7400, 127.0.0.0/8 or ::1 is wanted, or no --insecure") {
		t.Errorf("the line of the first address is missing:\n%v", err)
	}
}

func TestInsecureTakesNoNameButLocalhost(t *testing.T) {
	src := changed(t, loopback(t), `"127.0.0.1:7480"`, `"localhost:7480"`)
	load(t, src, Options{Node: "alpha", Insecure: true})
	src = changed(t, loopback(t), `"127.0.0.1:7480"`, `"myself.example:7480"`)
	_, err := Load(write(t, src), Options{Node: "alpha", Insecure: true})
	if got := linesOf(t, err); len(got) != 1 || !strings.Contains(got[0], "http myself.example:7480") {
		t.Errorf("a name that may resolve to anything was taken: %v", got)
	}
}

func TestEveryModeIsSupported(t *testing.T) {
	for _, mode := range []Mode{ModeSync, ModeSemisync, ModeAsync} {
		c := load(t, changed(t, loopback(t), `mode = "sync"`, `mode = "`+string(mode)+`"`), Options{Node: "alpha", Insecure: true})
		if c.Volumes[0].Mode != mode {
			t.Errorf("mode %q was read as %q", mode, c.Volumes[0].Mode)
		}
		four := loopback(t) + "node \"delta\" {\n  address = \"127.0.0.4:7400\"\n}\nnode \"epsilon\" {\n  address = \"127.0.0.5:7400\"\n}\n"
		four = changed(t, four, "  mode = \"sync\"", "  mode = \""+string(mode)+"\"\n  replica \"delta\" { device = \"/srv/d.img\" }\n  replica \"epsilon\" { device = \"/srv/e.img\" }")
		load(t, four, Options{Node: "alpha", Insecure: true})
	}
}

func TestReplicaHasTheModeOfTheVolumeOrItsOwn(t *testing.T) {
	src := changed(t, loopback(t), `  replica "beta" {`, "  replica \"beta\" {\n    mode = \"async\"")
	v := load(t, src, Options{Node: "alpha", Insecure: true}).Volumes[0]
	if v.Mode != ModeSync || v.ModeOf(v.Replicas[0]) != ModeSync || v.ModeOf(v.Replicas[1]) != ModeAsync || !v.HasAsync() || v.OwnModes()["beta"] != "async" || len(v.OwnModes()) != 1 {
		t.Errorf("%+v: %v", v, v.OwnModes())
	}
	_, err := Load(write(t, changed(t, src, `mode = "async"`, `mode = "eventual"`)), Options{Node: "alpha", Insecure: true})
	if got := linesOf(t, err); len(got) != 1 || !strings.Contains(got[0], "async") {
		t.Errorf("a mode that is none was taken: %v", got)
	}
}

func TestLoadRefusesWhatIsNotSupportedYet(t *testing.T) {
	more := func(nodes, replicas int) (text string) {
		names := []string{"delta", "epsilon", "zeta"}
		for i, n := range names[:nodes] {
			text += fmt.Sprintf("node %q {\n  address = \"127.0.0.%d:7400\"\n}\n", n, 4+i)
		}
		text += "volume \"pgdata\" {"
		for _, n := range names[:replicas] {
			text += fmt.Sprintf("\n  replica %q { device = \"/srv/%s.img\" }", n, n)
		}
		return text
	}
	tests := []struct{ name, old, new, want string }{
		{"attach", `attach = "none"`, `attach = "nbd"`,
			`cluster.hcl:31: not supported yet, attach = "nbd", attach = "auto", "fuse" or "none" is wanted: the daemon refuses to start with it`},
		{"attach by ublk", `attach = "none"`, `attach = "ublk"`,
			`cluster.hcl:31: not supported yet, attach = "ublk", attach = "auto", "fuse" or "none" is wanted: the daemon refuses to start with it`},
		{"one replica", "  replica \"alpha\" { device = \"/srv/${node.name}/${volume.name}.img\" }\n", "",
			`cluster.hcl:21: not supported yet, volume "pgdata", two replicas are wanted, not one: the daemon refuses to start with it`},
		{"five replicas", "volume \"pgdata\" {", more(3, 3),
			`cluster.hcl:38: not supported yet, replica "beta", up to four replicas of a volume are wanted, not more: the daemon refuses to start with it`},
		// faults.md C77
		{"two data nodes without a witness", "node \"gamma\" {\n  role    = \"witness\"\n  address = \"127.0.0.3:7400\"\n}\n", "",
			`cluster.hcl:1: not supported yet, data nodes: 2, witnesses: 0, add a node with role = "witness", because two voters cannot outvote each other when one is lost: the daemon refuses to start with it`},
		{"three data nodes and a witness", "volume \"pgdata\" {", more(1, 0),
			`cluster.hcl:1: not supported yet, data nodes: 3, witnesses: 1, leave a witness out, because 4 voters outlive the loss of no more nodes than 3: the daemon refuses to start with it`},
		{"four data nodes without a witness", "role    = \"witness\"\n  address = \"127.0.0.3:7400\"\n}", "address = \"127.0.0.3:7400\"\n}\nnode \"delta\" {\n  address = \"127.0.0.4:7400\"\n}",
			`cluster.hcl:1: not supported yet, data nodes: 4, witnesses: 0, add a node with role = "witness", because 4 voters outlive the loss of no more nodes than 3: the daemon refuses to start with it`},
		{"six nodes", "volume \"pgdata\" {", more(3, 0),
			`cluster.hcl:1: not supported yet, data nodes: 5, witnesses: 1, three or five nodes are wanted: all of them vote: the daemon refuses to start with it`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, changed(t, loopback(t), tt.old, tt.new))
			_, err := Load(path, Options{Node: "alpha", Insecure: true})
			if err == nil || !strings.Contains(err.Error()+"\n", tt.want+"\n") {
				t.Errorf("Load says\n%v\nwant among it\n%s", err, tt.want)
			}
			rep, err := Check(path, Options{})
			if err != nil {
				t.Fatalf("the file itself is right, but Check says %v", err)
			}
			if !strings.Contains(rep.Unsupported.Error()+"\n", tt.want+"\n") {
				t.Errorf("Check warns of\n%v\nwant among it\n%s", rep.Unsupported, tt.want)
			}
		})
	}
}

func TestLoadTakesThreeAndFiveNodesAndUpToFourReplicas(t *testing.T) {
	for name, c := range map[string]struct{ old, new string }{
		"three data nodes":                {`role    = "witness"`, `role    = "data"`},
		"four data nodes and a witness":   {"volume \"pgdata\" {", "node \"delta\" {\n  address = \"127.0.0.4:7400\"\n}\nnode \"epsilon\" {\n  address = \"127.0.0.5:7400\"\n}\nvolume \"pgdata\" {\n  replica \"delta\" { device = \"/srv/d.img\" }\n  replica \"epsilon\" { device = \"/srv/e.img\" }"},
		"two data nodes, three witnesses": {"volume \"pgdata\" {", "node \"delta\" {\n  role = \"witness\"\n  address = \"127.0.0.4:7400\"\n}\nnode \"epsilon\" {\n  role = \"witness\"\n  address = \"127.0.0.5:7400\"\n}\nvolume \"pgdata\" {"},
	} {
		t.Run(name, func(t *testing.T) {
			load(t, changed(t, loopback(t), c.old, c.new), Options{Node: "alpha", Insecure: true})
		})
	}
}

func TestNBDOverTCPBeyondLoopbackIsTakenWithTLSOnly(t *testing.T) {
	src := strings.NewReplacer(`"127.0.0.1:7480"`, `"127.0.0.1:7480"`, "127.0.0.1:74", "10.7.0.1:74", "127.0.0.2:74", "10.7.0.2:74",
		"127.0.0.3:74", "10.7.0.3:74", "127.0.1.", "10.8.1.").Replace(loopback(t))
	load(t, src, Options{Node: "alpha"})
	_, err := Load(write(t, src), Options{Node: "alpha", Insecure: true})
	if err == nil || !strings.Contains(err.Error(), "cluster.hcl:30: --insecure with an address that is no loopback address") {
		t.Errorf("%v", err)
	}
}

// Every key has a default but those that say what there is to serve.
func TestDefaults(t *testing.T) {
	c := load(t, `
cluster "lab" {}
node "a" { address = "127.0.0.1:7400" }
node "b" { address = "127.0.0.1:7500" }
node "w" {
  address = "127.0.0.1:7600"
  role    = "witness"
}
volume "v" {
  size = "4096"
  replica "a" { device = "/srv/a" }
  replica "b" { device = "/srv/b" }
}
`, Options{Node: "a", Insecure: true})
	want := Volume{Name: "v", Size: 4096, Mode: ModeSync, IO: IOAuto, SuspendLimit: time.Minute,
		Replicas: []Replica{{Node: "a", Device: "/srv/a", Export: Export{Attach: AttachAuto}}, {Node: "b", Device: "/srv/b", Export: Export{Attach: AttachAuto}}},
		Async:    Async{MaxLagBytes: 64 << 20, MaxLag: 5 * time.Second, Patience: 10 * time.Second}}
	if diff := cmp.Diff(want, c.Volumes[0], ignorePositions); diff != "" {
		t.Errorf("volume (-want +got):\n%s", diff)
	}
	if c.Cluster.RTO != 3*time.Second || c.Cluster.DiskDeadline != 5*time.Second || c.DataDir() != "/var/lib/hacluster" {
		t.Errorf("cluster %+v, data_dir %s", c.Cluster, c.DataDir())
	}
}

func TestVolumesShareATCPListener(t *testing.T) {
	src := loopback(t) + `
volume "logs" {
  size = "1MiB"
  replica "alpha" { device = "/srv/${node.name}/logs.img" }
  replica "beta" { device = "/srv/${node.name}/logs.img" }
  export { nbd = ["tcp://${node.host}:10809"] }
}
`
	load(t, src, Options{Node: "alpha", Insecure: true})
}

func TestNodesOnTheirOwnMachinesMayUseTheSamePaths(t *testing.T) {
	rep, err := Check("testdata/sample.hcl", Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := rep.Config.Volumes[0].Replicas[0], rep.Config.Volumes[0].Replicas[1]
	if a.Device != b.Device {
		t.Fatalf("the sample no longer uses one path on both nodes: %s and %s", a.Device, b.Device)
	}
}

func TestOneDataDirOnOneMachineIsWarnedOf(t *testing.T) {
	rep, err := check("cluster.hcl", []byte(changed(t, loopback(t), "/${node.name}\"\n", "\"\n")), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"cluster.hcl:1: one data_dir for nodes on one machine, data_dir /var/lib/hacluster, use ${node.name} in it, or start each node with --data-dir"}
	if diff := cmp.Diff(want, linesOf(t, rep.Warnings)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// faults.md C78: what all nodes must agree on must not depend on who reads.
func TestClusterWideValuesMustNotDependOnTheReader(t *testing.T) {
	src := strings.NewReplacer(`"alpha"`, `"3s"`, `"beta"`, `"4s"`, `"gamma"`, `"5s"`, `= "3s"`, `= "${node.name}"`,
		`suspend_limit = "60s"`, `suspend_limit = "${node.name}"`).Replace(loopback(t))
	_, err := check("cluster.hcl", []byte(src), Options{})
	want := []string{
		`cluster.hcl:1: differs between nodes, cluster "lab", only data_dir and attach_dir may use ${node...} here`,
		`cluster.hcl:21: differs between nodes, volume "pgdata", only device and export may use ${node...} here`,
	}
	if diff := cmp.Diff(want, linesOf(t, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnreadableFilesAreNoProblemsOfTheirContent(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.hcl")
	if err := os.WriteFile(big, []byte(strings.Repeat("#\n", MaxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "absent.hcl"), dir, big} {
		_, err := Check(path, Options{})
		if _, ok := err.(Problems); ok || err == nil || !strings.Contains(err.Error(), "read the configuration") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

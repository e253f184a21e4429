package topology

import (
	"strings"
	"testing"

	"hacluster/cmd/internal/config"
)

func testState(t *testing.T) *State {
	t.Helper()
	cfg := Config{Witnesses: 1, RTO: "2s", Size: "64MiB"}
	nodes, err := nodesFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &State{Config: cfg, Nodes: nodes}
}

// The product accepts what we write, for each node, with TLS and without.
func TestConfigurationIsAccepted(t *testing.T) {
	for _, plain := range []bool{false, true} {
		s := testState(t)
		s.Config.Plain = plain
		l := &Lab{Name: "x", Dir: t.TempDir()}
		if err := l.writeConfig(s); err != nil {
			t.Fatal(err)
		}
		for _, n := range s.Daemons() {
			cfg, err := config.Load(l.File(), config.Options{Node: n, Insecure: plain})
			if err == nil {
				err = cfg.Supported()
			}
			if err != nil {
				t.Errorf("plain %v, node %s: %v", plain, n, err)
			}
		}
	}
}

func TestRulesOfOneNode(t *testing.T) {
	s := testState(t)
	s.Rules = append(s.Rules, Cut("alpha", "beta", "")...)
	s.Rules = append(s.Rules, Rule{From: "gamma", To: "beta", Network: Heartbeat1, Port: LinkPort, Percent: 30, Longer: 1000})
	want := `table inet lab
delete table inet lab
table inet lab {
 chain in {
  type filter hook input priority 0; policy accept;
  ip saddr { 10.77.1.1, 10.77.2.1, 10.77.3.1, 10.77.4.1 } counter drop comment "alpha"
  iifname "hb1" ip saddr { 10.77.1.3, 10.77.2.3, 10.77.3.3 } meta length > 1000 meta l4proto { tcp, udp } th sport 7401 numgen random mod 100 < 30 counter drop comment "gamma"
  iifname "hb1" ip saddr { 10.77.1.3, 10.77.2.3, 10.77.3.3 } meta length > 1000 meta l4proto { tcp, udp } th dport 7401 numgen random mod 100 < 30 counter drop comment "gamma"
 }
}
`
	if got := s.ruleset("beta"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := s.ruleset("gamma"); strings.Contains(got, "drop") {
		t.Errorf("gamma loses something:\n%s", got)
	}
}

func TestRulesThatMakeNoSenseAreRefused(t *testing.T) {
	s := testState(t)
	for _, r := range []Rule{
		{From: "alpha", To: "alpha", Percent: 100},
		{From: "alpha", To: "omega", Percent: 100},
		{From: "omega", To: "alpha", Percent: 100},
		{From: "gamma", To: ClientHost, Percent: 100},
		{From: "alpha", To: "gamma", Network: Clients, Percent: 100},
		{From: "alpha", To: "beta", Network: "hb3", Percent: 100},
		{From: "alpha", To: "beta"},
		{From: "alpha", To: "beta", Percent: 101},
	} {
		if r.check(s) == nil {
			t.Errorf("%v was accepted", r)
		}
	}
	for _, r := range append(Cut("alpha", "beta", Clients), Lossy("gamma", "beta", "", 1)...) {
		if err := r.check(s); err != nil {
			t.Error(err)
		}
	}
}

func TestWitnessesAreOddInNumber(t *testing.T) {
	for n, fine := range map[int]bool{0: false, 1: true, 2: false, 3: true, 4: false} {
		if _, err := nodesFor(Config{Witnesses: n}); fine != (err == nil) {
			t.Errorf("%d witnesses: %v", n, err)
		}
	}
}

func TestNamesOfLabs(t *testing.T) {
	for name, fine := range map[string]bool{"lab": true, "run-17": true, "": false, "../etc": false, "Lab": false, strings.Repeat("x", 25): false} {
		if _, err := at(name); fine != (err == nil) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

package topology

import (
	"fmt"
	"slices"
	"strings"
)

// Rule loses packets that From sent when they arrive at To: one direction of a fault.
type Rule struct {
	From, To string
	Network  string // empty: all networks that both are on
	Port     int    // of TCP or UDP, at either end; 0: all
	Percent  int    // how many of a hundred packets are lost, at random
	Longer   int    // only packets of more bytes than this; 0: all
}

func (r Rule) String() string {
	what := fmt.Sprintf("%s>%s", r.From, r.To)
	if r.Network != "" {
		what += " on " + r.Network
	}
	if r.Port != 0 {
		what += fmt.Sprintf(" port %d", r.Port)
	}
	if r.Longer > 0 {
		what += fmt.Sprintf(" longer than %d", r.Longer)
	}
	if r.Percent < 100 {
		what += fmt.Sprintf(" %d%%", r.Percent)
	}
	return what
}

func (r Rule) check(s *State) error {
	from, err := s.Node(r.From)
	if err != nil {
		return err
	}
	to, err := s.Node(r.To)
	if err != nil {
		return err
	}
	both := Shared(from, to)
	switch {
	case r.From == r.To:
		return fmt.Errorf("rule %v: two nodes are wanted", r)
	case len(both) == 0:
		return fmt.Errorf("rule %v: they share no network", r)
	case r.Network != "" && !slices.Contains(both, r.Network):
		return fmt.Errorf("rule %v: they share the networks %v", r, both)
	case r.Percent < 1 || r.Percent > 100:
		return fmt.Errorf("rule %v: 1 to 100 percent are wanted", r)
	}
	return nil
}

// ruleset is what nft is given for one node: all rules of the packets that arrive there, in place of those before.
func (s *State) ruleset(to string) string {
	var b strings.Builder
	b.WriteString("table inet lab\ndelete table inet lab\n")
	b.WriteString("table inet lab {\n chain in {\n  type filter hook input priority 0; policy accept;\n")
	for _, r := range s.Rules {
		if r.To != to {
			continue
		}
		from, err := s.Node(r.From)
		if err != nil {
			continue // it was checked when the rule was taken
		}
		for _, m := range r.matches(s, from) {
			fmt.Fprintf(&b, "  %s counter drop comment %q\n", m, r.From)
		}
	}
	b.WriteString(" }\n}\n")
	return b.String()
}

// matches are the conditions of a rule; any one suffices.
func (r Rule) matches(s *State, from *Node) []string {
	var addresses []string
	for _, n := range from.On() {
		addresses = append(addresses, s.Address(from, n))
	}
	m := "ip saddr { " + strings.Join(addresses, ", ") + " }"
	if r.Network != "" {
		m = fmt.Sprintf("iifname %q %s", r.Network, m)
	}
	if r.Longer > 0 {
		m += fmt.Sprintf(" meta length > %d", r.Longer)
	}
	tail := ""
	if r.Percent < 100 {
		tail = fmt.Sprintf(" numgen random mod 100 < %d", r.Percent)
	}
	if r.Port == 0 {
		return []string{m + tail}
	}
	return []string{
		fmt.Sprintf("%s meta l4proto { tcp, udp } th sport %d%s", m, r.Port, tail),
		fmt.Sprintf("%s meta l4proto { tcp, udp } th dport %d%s", m, r.Port, tail),
	}
}

// Cut is both directions between two nodes.
func Cut(a, b, network string) []Rule {
	return []Rule{{From: a, To: b, Network: network, Percent: 100}, {From: b, To: a, Network: network, Percent: 100}}
}

// OneWay loses what from sends to to.
func OneWay(from, to, network string) []Rule {
	return []Rule{{From: from, To: to, Network: network, Percent: 100}}
}

// Lossy loses some of what goes between two nodes.
func Lossy(a, b, network string, percent int) []Rule {
	return []Rule{{From: a, To: b, Network: network, Percent: percent}, {From: b, To: a, Network: network, Percent: percent}}
}

package config

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Fence is one agent that can turn a node off.
type Fence struct {
	Node string
	// Level: those of the lowest are tried first, and all agents of a level must succeed.
	Level int
	// Agent is the name of a program on the PATH, or its path.
	Agent   string
	Options map[string]string
	// Timeout is for each call of the agent: one that takes longer is killed and has failed. Default 60s.
	Timeout time.Duration
	// Tries is how often it is asked in a row before its level has failed. Default 2.
	Tries int
	// Delay and up to RandomDelay more are waited before it is asked first. Default 0s.
	Delay, RandomDelay time.Duration

	at, agentAt pos
}

// Fencing is what a promotion in another's place waits for.
type Fencing string

// The choices.
const (
	FencingLease    Fencing = "lease"    // the end of the old primary's lease; agents, if there are any, turn it off beside that
	FencingRequired Fencing = "required" // likewise, and that it was turned off, or a person says that it is
)

// Bounds of the fence blocks.
const (
	maxFences        = 64 // in a file
	maxFenceTries    = 10
	maxFenceOptions  = 64      // of an agent
	maxFenceOption   = 1 << 10 // bytes of a name or value
	defaultFenceTime = "60s"
	minFenceTime     = time.Second
	maxFenceTime     = 10 * time.Minute
	maxFenceDelay    = 5 * time.Minute
)

var agentForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$`)

func (f Fence) same(o Fence) bool {
	return f.Node == o.Node && f.Level == o.Level && f.Agent == o.Agent && maps.Equal(f.Options, o.Options)
}

// Same reports whether both say the same, wherever they stand.
func (f Fence) Same(o Fence) bool {
	return f.same(o) && f.Timeout == o.Timeout && f.Tries == o.Tries && f.Delay == o.Delay && f.RandomDelay == o.RandomDelay
}

// fences reads the fence blocks: several per node are levels, or agents of one level.
func (r *reader) fences(root *body, nodes []Node) []Fence {
	var out []Fence
	for i, b := range root.blocks(true, "fence") {
		if i == maxFences {
			r.add(b.at, "too many fence blocks", fmt.Sprintf("at most %d are wanted", maxFences))
			break
		}
		f := r.fence(b, nodes)
		for _, other := range out {
			if f.same(other) {
				r.add(b.at, "duplicate block", fmt.Sprintf("the one in line %d is enough", other.at.line))
			}
		}
		out = append(out, f)
	}
	return out
}

func (r *reader) fence(b *body, nodes []Node) Fence {
	defer b.finish()
	if _, ok := findNode(nodes, b.label); !ok {
		r.add(b.at, "unknown node", "one of these is wanted: "+known(nodeNames(nodes)))
	}
	level, _ := b.number("level", 1)
	agent := b.need("agent", "fence_ipmilan")
	switch {
	case !agent.set:
	case agent.s == "":
		r.add(agent.at, "no agent", `the name of one on the PATH is wanted, such as "fence_ipmilan"`)
	case strings.HasPrefix(agent.s, "/") && badPath(agent.s) != "":
		r.addValue(agent, "unusable path", badPath(agent.s))
	case !strings.HasPrefix(agent.s, "/") && !agentForm.MatchString(agent.s):
		r.addValue(agent, "unusable agent", `the name of a program on the PATH is wanted, such as "fence_ipmilan", or a path`)
	}
	f := Fence{Node: b.label, Level: level, Agent: agent.s, Options: b.dict("options"), at: b.at, agentAt: agent.at}
	r.fenceOptions(b, f.Options)
	r.fenceTimes(b, &f)
	return f
}

func (r *reader) fenceOptions(b *body, options map[string]string) {
	at := b.posOfKey("options")
	at.text = "options" // their values may be secret
	if len(options) > maxFenceOptions {
		r.add(at, "too many options", fmt.Sprintf("at most %d are wanted", maxFenceOptions))
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if want := badOption(name, options[name]); want != "" {
			r.add(at, "unusable option "+snippet(name), want)
		}
	}
}

// badOption says what is wanted instead of an option that an agent could not be given.
func badOption(name, value string) string {
	switch {
	case name == "" || strings.ContainsFunc(name, func(c rune) bool { return c > '~' || c <= ' ' || c == '=' || c == '#' }):
		return "a name of letters, digits, - and _ is wanted"
	case name == "action" || name == "nodename" || name == "option":
		return "leave it out: the daemon gives it"
	case len(name) > maxFenceOption || len(value) > maxFenceOption:
		return fmt.Sprintf("at most %d bytes are wanted", maxFenceOption)
	case strings.ContainsFunc(value, unicode.IsControl):
		return "a value of one line is wanted: an agent reads name=value lines"
	case strings.TrimSpace(value) != value:
		return "a value without spaces around it is wanted: agents cut them off"
	}
	return ""
}

func (r *reader) fenceTimes(b *body, f *Fence) {
	f.Timeout = b.duration("timeout", defaultFenceTime)
	if f.Timeout < minFenceTime || f.Timeout > maxFenceTime {
		r.add(b.posOfKey("timeout"), "unusable time-out", fmt.Sprintf("%v to %v is wanted", minFenceTime, maxFenceTime))
	}
	f.Tries, _ = b.number("tries", 2)
	if f.Tries > maxFenceTries {
		r.add(b.posOfKey("tries"), "too many", fmt.Sprintf("at most %d are wanted", maxFenceTries))
	}
	f.Delay, f.RandomDelay = b.duration("delay", "0s"), b.duration("random_delay", "0s")
	for key, d := range map[string]time.Duration{"delay": f.Delay, "random_delay": f.RandomDelay} {
		if d > maxFenceDelay {
			r.add(b.posOfKey(key), "too long", fmt.Sprintf("at most %v is wanted: nobody is promoted meanwhile", maxFenceDelay))
		}
	}
}

// checkFences refuses to require what cannot be done: of a node without an agent nobody could follow but by a person's word.
func (c *Config) checkFences(r *report) {
	if c.Cluster.Fencing != FencingRequired {
		return
	}
	for _, n := range c.Nodes {
		if n.Role == RoleData && len(c.FencesOf(n.Name)) == 0 {
			r.add(c.Cluster.fencingAt, "node "+n.Name+" has no fence agent", fmt.Sprintf("fence %q { agent = ... } is wanted, for each data node", n.Name))
		}
	}
}

// FencesOf are the agents that can turn a node off, as the reading node evaluates them.
func (c *Config) FencesOf(node string) (out []Fence) {
	for _, f := range c.Fences {
		if f.Node == node {
			out = append(out, f)
		}
	}
	return out
}

// agentFolders are searched beside the PATH, as heartbeat/fence/agent does.
var agentFolders = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// MissingAgents are those that this machine does not have. Whichever node leads runs them, so each is to have all.
func (c *Config) MissingAgents() Problems {
	r := &report{file: c.File}
	if c.Self == "" {
		return nil // it is not known whether this machine is any of the nodes
	}
	for _, f := range c.Fences {
		if !Installed(f.Agent) {
			r.add(f.agentAt, "agent is not installed on this machine", "a program on the PATH or in "+strings.Join(agentFolders, ", ")+" is wanted, or a path: on Debian, apt-get install fence-agents")
		}
	}
	return r.problems
}

// Installed reports whether this machine has an agent. It asks file systems, which may take as long as they like.
func Installed(agent string) bool {
	program := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
	}
	if strings.HasPrefix(agent, "/") {
		return program(agent)
	}
	if _, err := exec.LookPath(agent); err == nil {
		return true
	}
	return slices.ContainsFunc(agentFolders, func(f string) bool { return program(filepath.Join(f, agent)) })
}

// fences compares how nodes are fenced, as the reading node sees it. Values of options are not shown: they may be secret.
func (p *plan) fences(old, next *Config) {
	differs(p, StepChange, next.Cluster.fencingAt, "fencing", old.Fencing(), next.Fencing(), "for promotions that are decided from then on")
	for _, n := range next.Nodes {
		was, is := old.FencesOf(n.Name), next.FencesOf(n.Name)
		if slices.EqualFunc(was, is, Fence.Same) {
			continue
		}
		at := next.Cluster.at
		if len(is) > 0 {
			at = is[0].at
		}
		if fencesText(was) == fencesText(is) {
			p.add(StepChange, at, "fence "+n.Name, "%s: other options, from the next attempt on", fencesText(is))
			continue
		}
		p.add(StepChange, at, "fence "+n.Name, "%s -> %s, from the next attempt on", shown(fencesText(was)), shown(fencesText(is)))
	}
}

func fencesText(all []Fence) string {
	var texts []string
	for _, f := range all {
		texts = append(texts, fmt.Sprintf("%s at level %d, timeout %v, tries %d, delay %v and up to %v, %d options", f.Agent, f.Level, f.Timeout, f.Tries, f.Delay, f.RandomDelay, len(f.Options)))
	}
	return strings.Join(texts, "; ")
}

// DocumentFence is an agent without the values of its options, which may be secret.
type DocumentFence struct {
	Node          string   `json:"node"`
	Level         int      `json:"level"`
	Agent         string   `json:"agent"`
	TimeoutMs     int64    `json:"timeout_ms"`
	Tries         int      `json:"tries"`
	DelayMs       int64    `json:"delay_ms"`
	RandomDelayMs int64    `json:"random_delay_ms"`
	Options       []string `json:"options"` // their names
}

func (f Fence) document() DocumentFence {
	return DocumentFence{Node: f.Node, Level: f.Level, Agent: f.Agent, TimeoutMs: f.Timeout.Milliseconds(), Tries: f.Tries, DelayMs: f.Delay.Milliseconds(), RandomDelayMs: f.RandomDelay.Milliseconds(),
		Options: append([]string{}, slices.Sorted(maps.Keys(f.Options))...)}
}

// Fencing is what a promotion in another's place waits for.
func (c *Config) Fencing() Fencing {
	if c.Cluster.Fencing == "" {
		return FencingLease
	}
	return c.Cluster.Fencing
}

package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"hacluster/cmd/internal/config"
)

// agentsPause is between two looks at whether the fence agents are installed: a package may come or go while we run.
const agentsPause = time.Minute

// missingAgents are the fence agents that this machine does not have. That is no reason not to run: most nodes never lead in a failure,
// and a lease needs no agent.
type missingAgents struct {
	mu    sync.Mutex
	names []string
}

func (m *missingAgents) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.names, name)
}

// set takes what is missing now, and returns what was not missing before.
func (m *missingAgents) set(names []string) (fresh []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if !slices.Contains(m.names, name) {
			fresh = append(fresh, name)
		}
	}
	m.names = names
	return fresh
}

// followAgents tells which agents are missing until ctx ends. The looks are beside us, one at a time: a mount may never answer.
func (n *Node) followAgents(ctx context.Context) error {
	looked := make(chan []string, 1)
	for {
		_, cfg, changed := n.run.watch()
		go func() { looked <- missingOf(cfg) }()
		select {
		case <-ctx.Done():
			return nil
		case names := <-looked:
			for _, name := range n.missing.set(names) {
				n.log.Warn("a fence agent is not installed on this machine: as leader this node could not turn another off with it", "agent", name)
				n.events.add("fence agent missing", "", fmt.Sprintf("%s is not installed on %s: as leader it could not turn another node off with it; on Debian, apt-get install fence-agents", name, n.me.Name))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(agentsPause):
		}
	}
}

func missingOf(cfg *config.Config) (names []string) {
	for _, f := range cfg.Fences {
		if !slices.Contains(names, f.Agent) && !config.Installed(f.Agent) {
			names = append(names, f.Agent)
		}
	}
	return names
}

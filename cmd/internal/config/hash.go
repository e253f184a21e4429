package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Hash is equal on all servers whose files mean the same, whatever their comments, layout and order of nodes, volumes
// and replicas, and whichever node reads. What stands in the file for another node counts too.
func (c *Config) Hash() string {
	plain := *c
	plain.Nodes = sortedBy(c.Nodes, func(n Node) string { return n.Name })
	plain.Volumes = sortedBy(c.Volumes, func(v Volume) string { return v.Name })
	plain.Links = sortedBy(c.Links, func(l Link) string { return l.Nodes[0] + " " + l.Nodes[1] })
	for i, v := range plain.Volumes {
		plain.Volumes[i].Replicas = sortedBy(v.Replicas, func(r Replica) string { return r.Node })
	}
	text, err := json.Marshal(struct {
		Format   int // raise it when a default changes its meaning
		Config   Config
		Services map[string][]Service
		Fences   map[string][]Fence
	}{1, plain, c.services, c.fences})
	if err != nil {
		panic("config: hash of a configuration: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func sortedBy[T any](in []T, key func(T) string) []T {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	return out
}

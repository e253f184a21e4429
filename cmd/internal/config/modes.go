package config

import (
	"fmt"
	"slices"
	"strings"
)

// ModeOf is the mode of a replica: its own, or the volume's.
func (v Volume) ModeOf(r Replica) Mode {
	if r.Mode != "" {
		return r.Mode
	}
	return v.Mode
}

// OwnModes are those of replicas that have another than the volume, by node; nil: none has.
func (v Volume) OwnModes() map[string]string {
	var own map[string]string
	for _, r := range v.Replicas {
		if m := v.ModeOf(r); m != v.Mode {
			if own == nil {
				own = map[string]string{}
			}
			own[r.Node] = string(m)
		}
	}
	return own
}

// HasAsync reports whether a replica may lack what clients were told of, so that the bound counts.
func (v Volume) HasAsync() bool {
	return v.Mode == ModeAsync && len(v.Replicas) == 0 || slices.ContainsFunc(v.Replicas, func(r Replica) bool { return v.ModeOf(r) == ModeAsync })
}

// modesText is the mode, and which replicas have another.
func (v Volume) modesText() string {
	var own []string
	for _, r := range v.Replicas {
		if m := v.ModeOf(r); m != v.Mode {
			own = append(own, r.Node+" "+string(m))
		}
	}
	if len(own) == 0 {
		return string(v.Mode)
	}
	return fmt.Sprintf("%s (%s)", v.Mode, strings.Join(own, ", "))
}

package node

import (
	"slices"
	"testing"

	"hacluster/heartbeat"
)

// A cable that is pulled must not read as good news, and a death is told once, not once more for each link.
func TestLinksAreToldOfWhileTheirPeerLives(t *testing.T) {
	const up, down = heartbeat.Up, heartbeat.Down
	state := func(s heartbeat.State, links ...heartbeat.LinkState) heartbeat.Peer {
		p := heartbeat.Peer{Name: "beta", State: s}
		for i, l := range links {
			p.Links = append(p.Links, heartbeat.Link{Address: []string{"10.0.0.2:7401", "192.168.7.2:7401"}[i], State: l})
		}
		return p
	}
	var told []string
	h := &heard{add: func(kind, _, text string) { told = append(told, kind+": "+text) }, down: map[string]bool{}}
	now := state(heartbeat.Unknown, down, down)
	for _, step := range []struct {
		to   heartbeat.Peer
		want []string
	}{
		{state(heartbeat.Alive, down, down), []string{"peer alive: beta is alive on the heartbeat links"}},
		{state(heartbeat.Alive, up, down), nil}, // as they come up after a start
		{state(heartbeat.Alive, up, up), nil},
		{state(heartbeat.Alive, up, down), []string{"link down: link 192.168.7.2:7401 of beta does not answer; 1 of its 2 links are up: check the cable and what lies between"}},
		{state(heartbeat.Suspect, up, down), []string{"peer suspect: beta is suspect on the heartbeat links"}},
		{state(heartbeat.Dead, up, down), []string{"peer dead: beta is dead on the heartbeat links"}},
		{state(heartbeat.Dead, down, down), nil}, // its verdict says enough
		{state(heartbeat.Alive, up, down), []string{"peer alive: beta is alive on the heartbeat links"}},
		{state(heartbeat.Alive, up, up), []string{"link up: link 192.168.7.2:7401 of beta answers again; 2 of its 2 links are up"}},
		{state(heartbeat.Alive, down, up), []string{"link down: link 10.0.0.2:7401 of beta does not answer; 1 of its 2 links are up: check the cable and what lies between"}},
	} {
		told = nil
		h.changed(heartbeat.Change{Before: now, After: step.to})
		if now = step.to; !slices.Equal(told, step.want) {
			t.Errorf("%+v: told %q, want %q", step.to, told, step.want)
		}
	}
}

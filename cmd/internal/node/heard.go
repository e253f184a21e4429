package node

import (
	"fmt"

	"hacluster/heartbeat"
)

// heard makes events of what the heartbeat links say: hints for people, which decide nothing. A link is told of while its
// peer lives: of one that is gone its verdict says enough, and its links come back by themselves. Called by one goroutine.
type heard struct {
	add  func(kind, volume, text string)
	down map[string]bool // links that were told to be down, by address: their return is told too
}

func (h *heard) changed(c heartbeat.Change) {
	name := c.After.Name
	if c.Before.State != c.After.State {
		h.add("peer "+c.After.State.String(), "", name+" is "+c.After.State.String()+" on the heartbeat links")
	}
	up := 0
	for _, l := range c.After.Links {
		if l.State == heartbeat.Up {
			up++
		}
	}
	for i, l := range c.After.Links {
		switch {
		case l.State == c.Before.Links[i].State:
		case l.State == heartbeat.Up && h.down[l.Address]:
			delete(h.down, l.Address)
			h.add("link up", "", fmt.Sprintf("link %s of %s answers again; %d of its %d links are up", l.Address, name, up, len(c.After.Links)))
		case l.State == heartbeat.Down && c.After.State == heartbeat.Alive:
			h.down[l.Address] = true
			h.add("link down", "", fmt.Sprintf("link %s of %s does not answer; %d of its %d links are up: check the cable and what lies between",
				l.Address, name, up, len(c.After.Links)))
		}
	}
}

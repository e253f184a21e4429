package node

import (
	"context"
	"fmt"
	"sync"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// drainsAtATime bounds the hand-overs of one drain that are under way.
const drainsAtATime = 16

// NodeDrain implements api.NodeKeeper. The word comes first, so that nothing goes to the node while what it has leaves.
func (n *Node) NodeDrain(ctx context.Context, name string, drained bool) error {
	c, ok := n.cfg.Node(name)
	switch {
	case !ok:
		return api.Failed("there is no node %q: `ha-admin node list` shows those that there are", name)
	case c.Role == config.RoleWitness:
		return api.Failed("%s is a witness, which is never primary: there is nothing to drain", name)
	}
	if err := n.applied(ctx, cluster.Command{SetDrained: &cluster.SetDrained{Node: name, Drained: drained}}); err != nil || !drained {
		return err
	}
	return n.handAllFrom(ctx, name)
}

// handAllFrom hands over what a node is primary of. What cannot be is told, and stays where it is.
func (n *Node) handAllFrom(ctx context.Context, name string) error {
	st := n.look(ctx).state
	var mu sync.Mutex
	var goes sync.WaitGroup
	turns := make(chan struct{}, drainsAtATime)
	led, stays, why := 0, 0, error(nil)
	for _, volume := range sortedKeys(st.Volumes) {
		if st.Volumes[volume].Primary != name {
			continue
		}
		led++
		epoch := st.Volumes[volume].Epoch // in a later one it is not what is meant to move: it has moved already
		goes.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if _, err := n.Failover(ctx, api.FailoverRequest{Volume: volume, Epoch: uint64(epoch)}); err != nil && n.state.get().Volumes[volume].Primary == name {
				mu.Lock()
				defer mu.Unlock()
				if stays++; why == nil {
					why = fmt.Errorf("%s: %w", volume, err)
				}
			}
		})
	}
	goes.Wait()
	if why != nil {
		refuse := api.Failed
		if api.KindOf(why) == api.KindRefused {
			refuse = api.Refused
		}
		return refuse("%s is drained, and stays primary of %d of its %d volumes: %v: run the command again when that is mended", name, stays, led, why)
	}
	return nil
}

// Maintenance implements api.NodeKeeper.
func (n *Node) Maintenance(ctx context.Context, on bool) error {
	return n.applied(ctx, cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: on}})
}

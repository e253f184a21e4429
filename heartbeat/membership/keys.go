package membership

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// SetKeys replaces the gossip keys while the gossip goes on: the first seals from now on, all open. Peers that have
// none of them are not heard, nor hear this node. Gossip that began without keys cannot get any, nor lose those that it
// has: that would leave plain text in between.
func (m *Membership) SetKeys(keys [][]byte) error {
	if (m.ring == nil) != (len(keys) == 0) {
		return errors.New("gossip cannot change between plain text and keys while it runs: restart the daemon")
	}
	if m.ring == nil {
		return nil
	}
	for i, k := range keys {
		if err := memberlist.ValidateKey(k); err != nil {
			return fmt.Errorf("gossip key %d: %w", i+1, err)
		}
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	if err := m.setRing(keys); err != nil {
		return fmt.Errorf("change the gossip keys: %w", err)
	}
	return m.codec.setKeys(keys)
}

// setRing adds before it uses and uses before it removes, so that there is always a key.
func (m *Membership) setRing(keys [][]byte) error {
	for _, k := range keys {
		if err := m.ring.AddKey(k); err != nil {
			return err
		}
	}
	if err := m.ring.UseKey(keys[0]); err != nil {
		return err
	}
	for _, old := range slices.Clone(m.ring.GetKeys()) {
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			continue
		}
		if err := m.ring.RemoveKey(old); err != nil {
			return err
		}
	}
	return nil
}

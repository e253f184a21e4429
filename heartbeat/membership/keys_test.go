package membership

import (
	"bytes"
	"testing"
	"time"
)

// Each node takes each of the three steps at another time; nobody is suspected at any moment, and in the end the old
// key opens nothing.
func TestKeysAreRotatedWhileTheGossipGoesOn(t *testing.T) {
	old, fresh := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	inBubble(t, func(c *cluster, _ *Memory) {
		for _, name := range nodeNames {
			c.startWith(name, func(cfg *Config) { cfg.Keys = [][]byte{old} })
		}
		time.Sleep(2 * time.Second)
		c.expectAll("alive up up")
		for _, keys := range [][][]byte{{old, fresh}, {fresh, old}, {fresh}} {
			for _, name := range nodeNames {
				if err := c.run[name].SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				c.expectAll("alive up up")
			}
		}
		for from, r := range c.run {
			for _, of := range nodeNames {
				if v := r.verdicts(of); of != from && v != "unknown>alive" {
					t.Errorf("%s changed its verdict of %s: %s", from, of, v)
				}
			}
			if n := r.Counters().Foreign; n != 0 {
				t.Errorf("%s did not open %d packets", from, n)
			}
		}
		c.stop("gamma")
		c.startWith("gamma", func(cfg *Config) { cfg.Keys = [][]byte{old} })
		time.Sleep(20 * time.Second)
		c.expect("alpha", "gamma", "dead down down")
	})
}

func TestUnusableKeysChangeNothing(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	cfg := Config{Cluster: "shop", Node: "alpha", Nodes: memoryNodes()}
	plain, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.SetKeys(nil); err != nil {
		t.Error(err)
	}
	if err := plain.SetKeys([][]byte{key}); err == nil {
		t.Error("plain gossip got a key while it runs")
	}
	cfg.Keys = [][]byte{key}
	sealed, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][][]byte{nil, {{1, 2, 3}}, {key, {1}}} {
		if err := sealed.SetKeys(keys); err == nil {
			t.Errorf("taken: %v", keys)
		}
	}
	if got := sealed.ring.GetKeys(); len(got) != 1 || !bytes.Equal(got[0], key) || len(sealed.codec.seals()) != 1 {
		t.Errorf("keys are %v", got)
	}
}

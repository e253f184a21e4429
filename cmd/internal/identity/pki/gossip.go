package pki

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"time"
)

// Gossip is what gossip.key holds: one key in each line, in base64, and when it was made. The first seals what is sent,
// every one opens what comes, so that keys can be changed while the nodes speak to each other: see RotateGossip.
type Gossip struct{ Keys []GossipKey }

// GossipKey is one of them.
type GossipKey struct {
	Key  []byte    // 32 bytes
	Made time.Time // zero: the line does not say
}

const (
	gossipKeyLen  = 32
	maxGossipKeys = 8
)

func newGossipKey(now time.Time) GossipKey {
	k := make([]byte, gossipKeyLen)
	rand.Read(k) // never fails
	return GossipKey{Key: k, Made: now.UTC().Truncate(time.Second)}
}

func (g Gossip) encode(cluster string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Gossip keys of cluster %s. The first seals, every one opens. Changed by `ha-admin pki rotate gossip`.\n", cluster)
	for _, k := range g.Keys {
		fmt.Fprintf(&b, "%s %s\n", base64.StdEncoding.EncodeToString(k.Key), k.Made.Format(time.RFC3339))
	}
	return b.Bytes()
}

// Raw are the keys alone.
func (g Gossip) Raw() (keys [][]byte) {
	for _, k := range g.Keys {
		keys = append(keys, k.Key)
	}
	return keys
}

// GossipKeys reads gossip.key.
func (f Folder) GossipKeys() (Gossip, error) {
	path := f.file(gossipKey)
	b, err := read(path, true)
	if err != nil {
		return Gossip{}, err
	}
	var g Gossip
	for i, line := range strings.Split(string(b), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		k, err := parseGossipKey(fields)
		if err != nil { // without the text: it may be a key
			return Gossip{}, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		for _, other := range g.Keys {
			if bytes.Equal(other.Key, k.Key) {
				return Gossip{}, fmt.Errorf("%s:%d: the same key as in a line before", path, i+1)
			}
		}
		g.Keys = append(g.Keys, k)
	}
	if len(g.Keys) == 0 || len(g.Keys) > maxGossipKeys {
		return Gossip{}, fmt.Errorf("%s holds %d keys: 1 to %d are wanted", path, len(g.Keys), maxGossipKeys)
	}
	return g, nil
}

func parseGossipKey(fields []string) (k GossipKey, err error) {
	k.Key, err = base64.StdEncoding.DecodeString(fields[0])
	if err != nil || len(k.Key) != gossipKeyLen {
		return k, fmt.Errorf("%d bytes in base64 are wanted", gossipKeyLen)
	}
	if len(fields) > 1 {
		if k.Made, err = time.Parse(time.RFC3339, fields[1]); err != nil {
			return k, fmt.Errorf("a time such as 2026-11-22T10:00:00Z is wanted behind the key")
		}
	}
	if len(fields) > 2 {
		return k, fmt.Errorf("a key and a time are wanted in one line, nothing else")
	}
	return k, nil
}

// Next is the step of a gossip key rotation that comes next.
func (g Gossip) Next() Step {
	switch n := len(g.Keys); {
	case n == 1:
		return StepAdd
	case g.Keys[n-1].Made.After(g.Keys[0].Made):
		return StepUse
	}
	return StepRemove
}

// RotateGossip takes one step. Each makes a file that works together with the one before it: add puts a new key behind
// the one in use, use puts it in front, remove takes the others away.
func (f Folder) RotateGossip(step Step) error {
	return f.locked(func() error {
		g, err := f.GossipKeys()
		if err != nil {
			return err
		}
		if next := g.Next(); step != next {
			return fmt.Errorf("%w: `rotate gossip %s`: next is `ha-admin pki rotate gossip %s`", ErrStep, step, next)
		}
		last := len(g.Keys) - 1
		switch step {
		case StepAdd:
			k := newGossipKey(f.now())
			if !k.Made.After(g.Keys[0].Made) { // clocks of a second's precision, or one that went back
				k.Made = g.Keys[0].Made.Add(time.Second)
			}
			g.Keys = append(g.Keys, k)
		case StepUse:
			g.Keys = append([]GossipKey{g.Keys[last]}, g.Keys[:last]...)
		case StepRemove:
			g.Keys = g.Keys[:1]
		}
		return f.replace(content{gossipKey, g.encode(f.clusterName()), os.FileMode(0o600)})
	})
}

// clusterName is for a comment: unknown is no error.
func (f Folder) clusterName() string {
	if cas, err := Certificates(f.file(caCert)); err == nil && checkCA(cas[0]) == nil {
		return cas[0].URIs[0].Host
	}
	return "?"
}

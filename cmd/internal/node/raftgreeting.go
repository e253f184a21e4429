package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/identity"
)

// raftGreeting opens each Raft connection, caller to called: a voter of an earlier cluster with the same name and
// addresses must not take part in this one (faults.md G39), and with TLS a node speaks for its own Raft id only.
//
//	0   4   "HRG", version 1
//	4   16  the cluster's id, zeroes while the caller does not know it
//	20  1   length of the caller's Raft id
//	21  80  that, zero-padded
const (
	raftGreetingMagic = "HRG\x01"
	raftGreetingLen   = 101
	maxRaftID         = 80
)

type raftGreeting struct{ clusterID, raftID string }

func (g raftGreeting) encode() ([]byte, error) {
	if len(g.raftID) > maxRaftID {
		return nil, fmt.Errorf("raft id %q is longer than %d bytes", g.raftID, maxRaftID)
	}
	b := make([]byte, raftGreetingLen)
	copy(b, raftGreetingMagic)
	if _, err := hex.Decode(b[4:20], []byte(g.clusterID)); err != nil && g.clusterID != "" {
		return nil, fmt.Errorf("cluster id %q: %w", g.clusterID, err)
	}
	b[20] = byte(len(g.raftID))
	copy(b[21:], g.raftID)
	return b, nil
}

func decodeRaftGreeting(b []byte) (g raftGreeting, err error) {
	if len(b) != raftGreetingLen || string(b[:3]) != raftGreetingMagic[:3] {
		return g, errors.New("it does not begin as this product's Raft connections do")
	}
	if b[3] != raftGreetingMagic[3] {
		return g, fmt.Errorf("it is of version %d, this node speaks version %d", b[3], raftGreetingMagic[3])
	}
	if b[20] == 0 || b[20] > maxRaftID {
		return g, fmt.Errorf("its Raft id has %d bytes, 1 to %d are wanted", b[20], maxRaftID)
	}
	if id := [16]byte(b[4:20]); id != [16]byte{} {
		g.clusterID = hex.EncodeToString(id[:])
	}
	g.raftID = string(b[21 : 21+b[20]])
	return g, nil
}

func (n *Node) greetRaft(ctx context.Context, c net.Conn) error {
	b, err := raftGreeting{n.clusterNow().ID, n.dir.raftID()}.encode()
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// raftConn is a connection that was accepted. The reader's first Read takes the greeting, within its deadline.
type raftConn struct {
	net.Conn
	n      *Node
	passed bool // the reader's own
}

// Read is part of net.Conn. One goroutine reads.
func (c *raftConn) Read(p []byte) (int, error) {
	if !c.passed {
		if err := c.n.admitRaft(c.Conn); err != nil {
			return 0, err
		}
		c.passed = true
	}
	return c.Conn.Read(p)
}

const (
	reasonRaftGreeting = "refused: Raft connection without a proper greeting"
	reasonRaftCluster  = "refused: Raft connection of another cluster"
	reasonRaftID       = "refused: Raft connection in another node's name"
)

func (n *Node) admitRaft(c net.Conn) error {
	b := make([]byte, raftGreetingLen)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	g, err := decodeRaftGreeting(b)
	reason := reasonRaftGreeting
	if err == nil {
		reason, err = n.judgeRaft(g, c)
	}
	if err != nil {
		n.trans.Refused(reason, "remote", c.RemoteAddr().String(), "why", err.Error())
	}
	return err
}

func (n *Node) judgeRaft(g raftGreeting, c net.Conn) (reason string, err error) {
	mine := n.clusterNow()
	if why := mine.Refuses(control.Cluster{Name: mine.Name, ID: g.clusterID}); why != "" {
		return reasonRaftCluster, errors.New(why)
	}
	// A Raft id is the node's name, a dash, and twelve digits of its directory.
	if p, ok := identity.PeerOf(c); ok && (!strings.HasPrefix(g.raftID, p.Name+"-") || len(g.raftID) != len(p.Name)+1+12) {
		return reasonRaftID, fmt.Errorf("raft id %q, the certificate is of %s", g.raftID, p)
	}
	return "", nil
}

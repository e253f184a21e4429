package membership

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
)

// A datagram between links, little-endian:
//
//	0  "HB"   2  version   3  kind   4  CRC-32C of all other bytes   8  cluster (8 bytes of the SHA-256 of its name)
//
//	gossip      16  number, random: makes equal messages differ, and copies of one message equal   24  memberlist's
//	others      16  from   24  to   32  instance   40  sequence   48  link   49  seven zeroes
//
// With keys the 40 bytes of all but gossip are sealed (AES-GCM, nonce first, the header but its checksum
// authenticated); memberlist seals its own. The checksum finds accidents, the seal finds forgers.
const (
	frameVersion  = 1
	headerLen     = 16
	gossipLen     = headerLen + 8
	probeBodyLen  = 40
	maxFrame      = 2048 // what is longer is cut off by the receiver and fails its checksum
	gossipPayload = 1300 // what memberlist may put into a packet
)

type frameKind byte

const (
	frameGossip frameKind = 1
	framePing   frameKind = 2
	frameEcho   frameKind = 3
	// frameStream opens a stream: who calls whom. Without it, memberlist would show its table to any caller.
	frameStream frameKind = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Why a frame is ignored.
var (
	errGarbage = errors.New("not a heartbeat packet")
	errVersion = errors.New("heartbeat packet of another version")
	errCluster = errors.New("heartbeat packet of another cluster")
	errSeal    = errors.New("heartbeat packet that was not sealed with one of our keys")
)

// nodeID stands for a node's name in a probe.
type nodeID [8]byte

func idOf(name string) nodeID { return hash8("node", name) }

func hash8(domain, s string) (h [8]byte) {
	sum := sha256.Sum256([]byte("hacluster " + domain + "\x00" + s))
	copy(h[:], sum[:])
	return h
}

// probe is a ping, an echo, or, from and to only, the opening of a stream. The echo repeats the ping with from and to
// exchanged.
type probe struct {
	from, to nodeID
	instance uint64 // random for each process: an echo to its predecessor is none to it
	seq      uint64
	link     uint8 // of the pinged node
}

func (p probe) echo() probe {
	p.from, p.to = p.to, p.from
	return p
}

// codec makes and checks frames of one cluster. Safe for concurrent use.
type codec struct {
	cluster [8]byte
	sealed  atomic.Pointer[[]cipher.AEAD] // the first one seals; none: plain text
}

func newCodec(cluster string, keys [][]byte) (*codec, error) {
	c := &codec{cluster: hash8("cluster", cluster)}
	return c, c.setKeys(keys)
}

func (c *codec) seals() []cipher.AEAD { return *c.sealed.Load() }

// setKeys replaces the keys, all at once, or none when it returns an error.
func (c *codec) setKeys(keys [][]byte) error {
	seals := []cipher.AEAD{}
	for i, k := range keys {
		// A key of our own, so that nonces of probes and of memberlist never meet.
		own, err := hkdf.Key(sha256.New, k, nil, "hacluster heartbeat probe", 32)
		if err != nil {
			return fmt.Errorf("gossip key %d: %w", i+1, err)
		}
		block, err := aes.NewCipher(own)
		if err != nil {
			return fmt.Errorf("gossip key %d: %w", i+1, err)
		}
		seal, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return fmt.Errorf("gossip key %d: %w", i+1, err)
		}
		seals = append(seals, seal)
	}
	c.sealed.Store(&seals)
	return nil
}

func (c *codec) header(kind frameKind) []byte {
	b := make([]byte, headerLen, headerLen+128)
	b[0], b[1], b[2], b[3] = 'H', 'B', frameVersion, byte(kind)
	copy(b[8:], c.cluster[:])
	return b
}

func finish(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], checksum(b))
	return b
}

func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, b[8:])
}

// authenticated are the header's bytes that a seal covers.
func authenticated(b []byte) []byte {
	return append(append(make([]byte, 0, headerLen), b[:4]...), b[8:headerLen]...)
}

func (c *codec) encodeGossip(number uint64, payload []byte) []byte {
	b := binary.LittleEndian.AppendUint64(c.header(frameGossip), number)
	return finish(append(b, payload...))
}

func (c *codec) encodeProbe(kind frameKind, p probe) []byte {
	b := c.header(kind)
	body := make([]byte, 0, probeBodyLen)
	body = append(append(body, p.from[:]...), p.to[:]...)
	body = binary.LittleEndian.AppendUint64(body, p.instance)
	body = binary.LittleEndian.AppendUint64(body, p.seq)
	body = append(body, p.link, 0, 0, 0, 0, 0, 0, 0)
	if seals := c.seals(); len(seals) > 0 {
		return finish(seals[0].Seal(b, nil, body, authenticated(b)))
	}
	return finish(append(b, body...))
}

// probeLen is how long an encoded probe is.
func (c *codec) probeLen() int {
	if seals := c.seals(); len(seals) > 0 {
		return headerLen + probeBodyLen + seals[0].Overhead()
	}
	return headerLen + probeBodyLen
}

// check verifies all but a probe's seal.
func (c *codec) check(b []byte) (frameKind, error) {
	if len(b) < headerLen || b[0] != 'H' || b[1] != 'B' || binary.LittleEndian.Uint32(b[4:]) != checksum(b) {
		return 0, errGarbage
	}
	if b[2] != frameVersion {
		return 0, errVersion
	}
	if [8]byte(b[8:headerLen]) != c.cluster {
		return 0, errCluster
	}
	kind := frameKind(b[3])
	if kind < frameGossip || kind > frameStream || kind == frameGossip && len(b) <= gossipLen {
		return 0, errGarbage
	}
	return kind, nil
}

// gossipOf is memberlist's part of a checked gossip frame.
func gossipOf(b []byte) []byte { return b[gossipLen:] }

// decodeProbe opens a checked ping or echo.
func (c *codec) decodeProbe(b []byte) (probe, error) {
	body := b[headerLen:]
	if len(c.seals()) > 0 {
		var err error
		if body, err = c.open(b); err != nil {
			return probe{}, err
		}
	}
	if len(body) != probeBodyLen || [7]byte(body[33:]) != [7]byte{} {
		return probe{}, errGarbage
	}
	return probe{
		from:     nodeID(body[:8]),
		to:       nodeID(body[8:16]),
		instance: binary.LittleEndian.Uint64(body[16:]),
		seq:      binary.LittleEndian.Uint64(body[24:]),
		link:     body[32],
	}, nil
}

func (c *codec) open(b []byte) ([]byte, error) {
	for _, s := range c.seals() {
		if body, err := s.Open(nil, nil, b[headerLen:], authenticated(b)); err == nil {
			return body, nil
		}
	}
	return nil, errSeal
}

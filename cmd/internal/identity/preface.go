package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// Proto is what is spoken on a connection of the node's TCP port.
type Proto byte

// The protocols. The numbers are on the wire.
const (
	ProtoRaft Proto = 1
	// ProtoGRPC carries control and administration.
	ProtoGRPC Proto = 2
	// ProtoData carries the block data of one volume to one peer.
	ProtoData Proto = 3
	// ProtoRelay is like ProtoData, to a node that carries the stream on to the peer.
	ProtoRelay Proto = 4
)

var protos = []Proto{ProtoRaft, ProtoGRPC, ProtoData, ProtoRelay}

func (p Proto) known() bool { return slices.Contains(protos, p) }

func (p Proto) String() string {
	switch p {
	case ProtoRaft:
		return "raft"
	case ProtoGRPC:
		return "grpc"
	case ProtoData:
		return "data"
	case ProtoRelay:
		return "relay"
	}
	return fmt.Sprintf("protocol %d", byte(p))
}

// The preface: "HACL", version, protocol, two zeroes.
const (
	prefaceLen     = 8
	prefaceMagic   = "HACL"
	prefaceVersion = 1
)

type preface [prefaceLen]byte

func newPreface(p Proto) preface {
	return preface{'H', 'A', 'C', 'L', prefaceVersion, byte(p), 0, 0}
}

// proto is the protocol that the preface names, or what is wrong with it.
func (p preface) proto() (Proto, error) {
	if string(p[:4]) != prefaceMagic {
		return 0, p.foreign()
	}
	if p[4] != prefaceVersion {
		return 0, fmt.Errorf("preface of version %d, this node speaks version %d", p[4], prefaceVersion)
	}
	if p[6] != 0 || p[7] != 0 {
		return 0, fmt.Errorf("preface with reserved bytes set: % x", p[6:])
	}
	if proto := Proto(p[5]); proto.known() {
		return proto, nil
	}
	return 0, fmt.Errorf("preface names unknown protocol %d", p[5])
}

// foreign guesses, for the operator, what else was spoken.
func (p preface) foreign() error {
	switch {
	case p[0] == 0x16 && p[1] == 3:
		return errors.New("TLS spoken to a node that runs with --insecure")
	case bytes.HasPrefix(p[:], []byte("PRI * HT")):
		return errors.New("plain HTTP/2 without a preface")
	case bytes.HasPrefix(p[:], []byte("GET ")), bytes.HasPrefix(p[:], []byte("POST ")), bytes.HasPrefix(p[:], []byte("HEAD ")):
		return errors.New("plain HTTP spoken to the node's port")
	}
	return fmt.Errorf("no preface of this protocol: %q", p[:])
}

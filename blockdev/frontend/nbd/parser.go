package nbd

import (
	"encoding/binary"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// parser takes apart the data of an option, which is in memory already. After the first length that lies it returns
// zero values, and bad is true.
type parser struct {
	rest   []byte
	bad    bool
	tooBig bool // a string was longer than the protocol allows
}

func (p *parser) take(n int) []byte {
	if p.bad || n < 0 || n > len(p.rest) {
		p.bad = true
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) uint16() uint16 {
	if b := p.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) uint32() uint32 {
	if b := p.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (p *parser) string(n int) string {
	b := p.take(n)
	if len(b) > nbdproto.MaxName {
		p.tooBig = true
		return ""
	}
	return string(b)
}

package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// The identity file says whose state this is:
//
//	0    8    magic "hacnode\x01"
//	8    4    length of the id
//	12   128  id, zero-padded
//	140  4    CRC-32C of the bytes before
const (
	identityMagic = "hacnode\x01"
	identityLen   = 144
)

func encodeIdentity(id string) []byte {
	b := make([]byte, identityLen)
	copy(b, identityMagic)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(id)))
	copy(b[12:140], id)
	binary.LittleEndian.PutUint32(b[140:], crc32.Checksum(b[:140], castagnoli))
	return b
}

func decodeIdentity(b []byte) (string, error) {
	switch {
	case len(b) != identityLen:
		return "", fmt.Errorf("it has %d bytes, not %d", len(b), identityLen)
	case string(b[:7]) != identityMagic[:7]:
		return "", errors.New("it does not start with its magic number")
	case b[7] != identityMagic[7]:
		return "", fmt.Errorf("it has format version %d, this program knows %d", b[7], identityMagic[7])
	case binary.LittleEndian.Uint32(b[140:]) != crc32.Checksum(b[:140], castagnoli):
		return "", errors.New("its checksum does not match")
	}
	n := binary.LittleEndian.Uint32(b[8:])
	if n == 0 || n > maxIDLen {
		return "", fmt.Errorf("it has an id of %d bytes", n)
	}
	return string(b[12 : 12+n]), nil
}

// checkIdentity refuses the state of another node.
func (d *directory) checkIdentity(own string) error {
	id, err := d.readIdentity()
	if err == nil && id != own {
		err = fmt.Errorf("%w: %s belongs to %q, this node is %q: give this node its own directory", ErrForeign, d.root, id, own)
	}
	return err
}

func (d *directory) readIdentity() (string, error) {
	b, err := os.ReadFile(d.file("identity"))
	if err != nil {
		return "", fmt.Errorf("%w: %w: %s", ErrCorrupt, err, remedy)
	}
	id, err := decodeIdentity(b)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w: %s", ErrCorrupt, d.file("identity"), err, remedy)
	}
	return id, nil
}

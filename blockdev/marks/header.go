package marks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev/meta"
)

// The header. Magic, version and checksum are at the same places in every version, so that an older program can tell
// "newer" from "damaged". Strings are padded with zeroes; what is between the fields and the checksum is zero.
const (
	headerSize = 4096
	tableAt    = 2 * headerSize

	offMagic      = 0   // 8
	offVersion    = 8   // 4, then 4 zero
	offGeneration = 16  // 8
	offTag        = 24  // 8
	offSize       = 32  // 8
	offRegion     = 40  // 8
	offCluster    = 48  // 16
	offVolume     = 64  // 16
	offNode       = 80  // 64
	offBoot       = 144 // 16
	offStart      = 160 // 8
	offAttachment = 168 // 128
	offSlots      = 296 // 16 of slotSize
	offRest       = offSlots + MaxSlots*slotSize
	offChecksum   = headerSize - 4

	slotPeer     = 0  // 64
	slotPromised = 64 // 8
	slotSettled  = 72 // 8
	slotFlags    = 80 // 4
	slotReplica  = 84 // 4, from version 2 on
	slotSize     = 88

	flagEverything = 1
)

var magic = [8]byte{'h', 'a', 'c', 'l', 'm', 'a', 'r', 'k'}

type header struct {
	generation      uint64 // counts updates
	tag             uint64 // given at random by Create
	size, region    int64
	cluster, volume meta.ID
	node            string
	incarnation     Incarnation
	slots           [MaxSlots]Slot
}

func (h *header) encode() []byte {
	p := make([]byte, headerSize)
	le := binary.LittleEndian
	copy(p[offMagic:], magic[:])
	le.PutUint32(p[offVersion:], h.version())
	le.PutUint64(p[offGeneration:], h.generation)
	le.PutUint64(p[offTag:], h.tag)
	le.PutUint64(p[offSize:], uint64(h.size))
	le.PutUint64(p[offRegion:], uint64(h.region))
	copy(p[offCluster:], h.cluster[:])
	copy(p[offVolume:], h.volume[:])
	copy(p[offNode:], h.node)
	copy(p[offBoot:], h.incarnation.Boot[:])
	le.PutUint64(p[offStart:], h.incarnation.Start)
	copy(p[offAttachment:], h.incarnation.Attachment)
	for i := range h.slots {
		h.slots[i].encode(p[offSlots+i*slotSize:])
	}
	le.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
	return p
}

// version: an older program goes on with a map as long as it understands all of it.
func (h *header) version() uint32 {
	for i := range h.slots {
		if h.slots[i].Replica > 0 {
			return 2
		}
	}
	return 1
}

func (s *Slot) encode(p []byte) {
	copy(p[slotPeer:slotPromised], s.Peer)
	binary.LittleEndian.PutUint64(p[slotPromised:], s.Number.Promised)
	binary.LittleEndian.PutUint64(p[slotSettled:], s.Number.Settled)
	flags := uint32(0)
	if s.Everything {
		flags |= flagEverything
	}
	binary.LittleEndian.PutUint32(p[slotFlags:], flags)
	binary.LittleEndian.PutUint32(p[slotReplica:], s.Replica)
}

// decodeHeader believes nothing before the checksum is right, and of a newer version nothing at all.
func decodeHeader(p []byte) (*header, error) {
	le := binary.LittleEndian
	if !bytes.Equal(p[:offVersion], magic[:]) {
		return nil, fmt.Errorf("magic: found %q, expected %q", p[:offVersion], magic[:])
	}
	if found, want := le.Uint32(p[offChecksum:]), crc32.Checksum(p[:offChecksum], castagnoli); found != want {
		return nil, fmt.Errorf("checksum: found %#08x, its content has %#08x", found, want)
	}
	v := le.Uint32(p[offVersion:])
	if v < 1 || v > Version {
		return nil, fmt.Errorf("%w: it has version %d, this program knows up to %d: install the newer program again; nothing was written", ErrVersion, v, Version)
	}
	h := &header{
		generation: le.Uint64(p[offGeneration:]), tag: le.Uint64(p[offTag:]),
		size: int64(le.Uint64(p[offSize:])), region: int64(le.Uint64(p[offRegion:])),
		cluster: meta.ID(p[offCluster:offVolume]), volume: meta.ID(p[offVolume:offNode]),
		incarnation: Incarnation{Boot: meta.ID(p[offBoot:offStart]), Start: le.Uint64(p[offStart:])},
	}
	errs := []error{
		text(p[offNode:offBoot], "node", &h.node),
		text(p[offAttachment:offSlots], "attachment", &h.incarnation.Attachment),
	}
	for i := range h.slots {
		errs = append(errs, h.slots[i].decode(p[offSlots+i*slotSize:][:slotSize], i))
	}
	if v != h.version() {
		errs = append(errs, fmt.Errorf("numbers of replicas: those found belong to version %d, it has %d", h.version(), v))
	}
	if h.size <= 0 || h.size > MaxVolume || h.region != regionSize(h.size) {
		errs = append(errs, fmt.Errorf("size %d with regions of %d: no program of this version writes that", h.size, h.region))
	}
	if !zero(p[offVersion+4:offGeneration]) || !zero(p[offRest:offChecksum]) {
		errs = append(errs, errors.New("reserved bytes: found some that are not zero"))
	}
	return h, errors.Join(errs...)
}

func (s *Slot) decode(p []byte, i int) error {
	flags := binary.LittleEndian.Uint32(p[slotFlags:])
	s.Number = Number{Promised: binary.LittleEndian.Uint64(p[slotPromised:]), Settled: binary.LittleEndian.Uint64(p[slotSettled:])}
	s.Everything = flags&flagEverything != 0
	s.Replica = binary.LittleEndian.Uint32(p[slotReplica:])
	if flags&^flagEverything != 0 {
		return fmt.Errorf("slot %d: flags %#x are unknown", i, flags)
	}
	return text(p[slotPeer:slotPromised], "peer", &s.Peer)
}

func text(p []byte, field string, into *string) error {
	s, rest, _ := bytes.Cut(p, []byte{0})
	if !zero(rest) {
		return fmt.Errorf("%s: found %q, which goes on behind its end", field, p)
	}
	*into = string(s)
	return nil
}

func zero(p []byte) bool { return len(bytes.TrimLeft(p, "\x00")) == 0 }

// chooseHeader finds the header in its two copies. An update ends when both are durable, so either one holds all that
// was acknowledged, and the newer one perhaps one update more.
func chooseHeader(a, b []byte) (h *header, damage, err error) {
	ha, errA := decodeHeader(a)
	hb, errB := decodeHeader(b)
	for i, err := range []error{errA, errB} {
		if errors.Is(err, ErrVersion) {
			return nil, nil, fmt.Errorf("header %d: %w", i, err)
		}
	}
	switch {
	case errA == nil && errB == nil && ha.tag != hb.tag:
		return nil, nil, fmt.Errorf("%w: its headers are of two files, %#x and %#x: all blocks may differ", ErrCorrupt, ha.tag, hb.tag)
	case errA == nil && errB == nil && hb.generation > ha.generation:
		return hb, nil, nil
	case errA == nil && errB == nil:
		return ha, nil, nil
	case errA == nil:
		return ha, fmt.Errorf("header 1: %w", errB), nil
	case errB == nil:
		return hb, fmt.Errorf("header 0: %w", errA), nil
	case zero(a) && zero(b):
		return nil, nil, ErrNone
	}
	return nil, nil, fmt.Errorf("%w: header 0: %w; header 1: %w: all blocks may differ", ErrCorrupt, errA, errB)
}

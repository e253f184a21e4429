package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A copy is one block of copySize bytes, little-endian. Every version of the format has the magic, the version and the
// checksum at the same places, so that an older program can tell "newer" from "damaged". Bytes between the fields and
// the checksum are zero; strings are padded with zeroes.
const (
	copySize = 4096
	fileSize = 2 * copySize

	offMagic           = 0   // 8
	offVersion         = 8   // 4
	offFlags           = 12  // 4
	offGeneration      = 16  // 8
	offEpoch           = 24  // 8
	offReservedGen     = 32  // 8
	offSize            = 40  // 8
	offBlockSize       = 48  // 4, then 4 zero
	offClusterID       = 56  // 16
	offVolumeID        = 72  // 16
	offNode            = 88  // 64
	offAttachment      = 152 // 128
	offDevicePath      = 280 // 256
	offCleanBootID     = 536 // 16
	offCleanAttachment = 552 // 128
	offCleanStart      = 680 // 8
	offResized         = 688 // 8, from version 2 on
	offReplica         = 696 // 4, from version 3 on, then 4 zero
	offRest            = 704 // zero up to the checksum
	offChecksum        = copySize - 4
)

const (
	flagInconsistent = 1 << iota
	flagFailed
	flagCleanStop
	knownFlags = 1<<iota - 1
)

var magic = [8]byte{'h', 'a', 'c', 'l', 's', 'u', 'p', 'r'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fields names the bytes of a copy, for messages.
var fields = []struct {
	name     string
	from, to int
}{
	{"magic", offMagic, offVersion},
	{"version", offVersion, offFlags},
	{"flags", offFlags, offGeneration},
	{"generation", offGeneration, offEpoch},
	{"epoch", offEpoch, offReservedGen},
	{"formation generation", offReservedGen, offSize},
	{"size", offSize, offBlockSize},
	{"block size", offBlockSize, offClusterID},
	{"cluster id", offClusterID, offVolumeID},
	{"volume id", offVolumeID, offNode},
	{"node", offNode, offAttachment},
	{"attachment", offAttachment, offDevicePath},
	{"device path", offDevicePath, offCleanBootID},
	{"clean-stop boot id", offCleanBootID, offCleanAttachment},
	{"clean-stop attachment", offCleanAttachment, offCleanStart},
	{"clean-stop start number", offCleanStart, offResized},
	{"number of the size", offResized, offReplica},
	{"number of the replica", offReplica, offRest},
	{"reserved bytes", offRest, offChecksum},
	{"checksum", offChecksum, copySize},
}

// encode gives the copy of a valid superblock.
func encode(sb *Superblock) []byte {
	p := make([]byte, copySize)
	le := binary.LittleEndian
	copy(p[offMagic:], magic[:])
	le.PutUint32(p[offVersion:], versionOf(sb))
	le.PutUint32(p[offFlags:], flagsOf(sb))
	le.PutUint64(p[offGeneration:], sb.Generation)
	le.PutUint64(p[offEpoch:], sb.Epoch)
	le.PutUint64(p[offReservedGen:], sb.ReservedGen)
	le.PutUint64(p[offSize:], uint64(sb.Size))
	le.PutUint32(p[offBlockSize:], sb.BlockSize)
	copy(p[offClusterID:], sb.ClusterID[:])
	copy(p[offVolumeID:], sb.VolumeID[:])
	copy(p[offNode:], sb.Node)
	copy(p[offAttachment:], sb.Attachment)
	copy(p[offDevicePath:], sb.DevicePath)
	copy(p[offCleanBootID:], sb.CleanStop.BootID[:])
	copy(p[offCleanAttachment:], sb.CleanStop.Attachment)
	le.PutUint64(p[offCleanStart:], sb.CleanStop.Start)
	le.PutUint64(p[offResized:], sb.Resized)
	le.PutUint32(p[offReplica:], sb.Replica)
	le.PutUint32(p[offChecksum:], checksum(p))
	return p
}

// versionOf: an older program goes on with a superblock as long as it understands all of it.
func versionOf(sb *Superblock) uint32 {
	switch {
	case sb.Replica > 0:
		return 3
	case sb.Resized > 0:
		return 2
	}
	return 1
}

func checksum(p []byte) uint32 { return crc32.Checksum(p[:offChecksum], castagnoli) }

func flagsOf(sb *Superblock) (flags uint32) {
	if sb.Inconsistent {
		flags |= flagInconsistent
	}
	if sb.Failed {
		flags |= flagFailed
	}
	if sb.CleanStop.Valid {
		flags |= flagCleanStop
	}
	return flags
}

// decode reads a copy. It believes nothing before the checksum is right, and of a newer version nothing at all.
func decode(p []byte) (*Superblock, error) {
	le := binary.LittleEndian
	if !bytes.Equal(p[:offVersion], magic[:]) {
		return nil, fmt.Errorf("magic: found %q, expected %q", p[:offVersion], magic[:])
	}
	if found, want := le.Uint32(p[offChecksum:]), checksum(p); found != want {
		return nil, fmt.Errorf("checksum: found %#08x, its content has %#08x", found, want)
	}
	v := le.Uint32(p[offVersion:])
	if v < 1 || v > Version {
		return nil, versionError(v)
	}
	flags := le.Uint32(p[offFlags:])
	sb := &Superblock{
		ClusterID:    ID(p[offClusterID:]),
		VolumeID:     ID(p[offVolumeID:]),
		Size:         int64(le.Uint64(p[offSize:])),
		BlockSize:    le.Uint32(p[offBlockSize:]),
		Generation:   le.Uint64(p[offGeneration:]),
		Epoch:        le.Uint64(p[offEpoch:]),
		ReservedGen:  le.Uint64(p[offReservedGen:]),
		Resized:      le.Uint64(p[offResized:]),
		Replica:      le.Uint32(p[offReplica:]),
		Inconsistent: flags&flagInconsistent != 0,
		Failed:       flags&flagFailed != 0,
		CleanStop: CleanStop{
			Valid:  flags&flagCleanStop != 0,
			BootID: ID(p[offCleanBootID:]),
			Start:  le.Uint64(p[offCleanStart:]),
		},
	}
	return sb, decodeRest(p, sb, flags, v)
}

// decodeRest reads the strings and refuses what no program of this version writes.
func decodeRest(p []byte, sb *Superblock, flags, version uint32) error {
	errs := []error{
		text(p[offNode:offAttachment], "node", &sb.Node),
		text(p[offAttachment:offDevicePath], "attachment", &sb.Attachment),
		text(p[offDevicePath:offCleanBootID], "device path", &sb.DevicePath),
		text(p[offCleanAttachment:offCleanStart], "clean-stop attachment", &sb.CleanStop.Attachment),
	}
	if flags&^knownFlags != 0 {
		errs = append(errs, fmt.Errorf("flags: found %#x, of which %#x are unknown", flags, flags&^knownFlags))
	}
	if !allZero(p[offBlockSize+4:offClusterID]) || !allZero(p[offReplica+4:offRest]) || !allZero(p[offRest:offChecksum]) {
		errs = append(errs, errors.New("reserved bytes: found some that are not zero"))
	}
	if version != versionOf(sb) {
		errs = append(errs, fmt.Errorf("number of the size: found %d, and of the replica %d, in version %d", sb.Resized, sb.Replica, version))
	}
	return errors.Join(append(errs, sb.validate())...)
}

func text(p []byte, field string, into *string) error {
	s, rest, _ := bytes.Cut(p, []byte{0})
	if !allZero(rest) {
		return fmt.Errorf("%s: found %q, which goes on behind its end", field, p)
	}
	*into = string(s)
	return nil
}

func versionError(found uint32) error {
	if found < 1 {
		return fmt.Errorf("version: found %d, the oldest that was ever written is 1", found)
	}
	return fmt.Errorf("%w: it has version %d, this program knows up to %d: install the newer program again; nothing was written", ErrVersion, found, Version)
}

func allZero(p []byte) bool { return len(bytes.TrimLeft(p, "\x00")) == 0 }

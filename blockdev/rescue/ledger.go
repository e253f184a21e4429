package rescue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"hacluster/blockdev/meta"
)

// The ledger outlives the images of a replica: which numbers they got, so that no name is given twice, also not after what had
// it was deleted. Magic, version and checksum are at the same places in every version; what is between the fields and the
// checksum is zero. A number is noted, durably, before anything is made that bears it: a crash in between leaves out a number.
const (
	ledgerSize = 4096
	// LedgerVersion is the format that this program writes, and the newest that it reads.
	LedgerVersion = 1

	offLedgerCluster = 16 // 16
	offLedgerVolume  = 32 // 16
	offLedgerLast    = 48 // 8
	offLedgerNode    = 56 // meta.MaxNode, padded with zeroes
	offLedgerRest    = offLedgerNode + meta.MaxNode
)

var (
	ledgerMagic = [8]byte{'h', 'a', 'c', 'l', 'l', 'e', 'd', 'g'}
	// errNewerLedger: what it says is not known, and nothing is written over it.
	errNewerLedger = errors.New("install the newer program again; nothing was written")
)

type ledger struct {
	cluster, volume meta.ID
	node            string
	last            uint64 // the greatest number that a rescue image of the replica ever got
}

func (l *ledger) encode() []byte {
	p := make([]byte, ledgerSize)
	le := binary.LittleEndian
	copy(p[offMagic:], ledgerMagic[:])
	le.PutUint32(p[offVersion:], LedgerVersion)
	copy(p[offLedgerCluster:], l.cluster[:])
	copy(p[offLedgerVolume:], l.volume[:])
	le.PutUint64(p[offLedgerLast:], l.last)
	copy(p[offLedgerNode:offLedgerRest], l.node)
	le.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
	return p
}

// decodeLedger believes nothing before the checksum is right, and of a newer version nothing at all.
func decodeLedger(p []byte) (l ledger, err error) {
	le := binary.LittleEndian
	switch {
	case len(p) != ledgerSize:
		return l, fmt.Errorf("found %d bytes, it has %d", len(p), ledgerSize)
	case !bytes.Equal(p[:offVersion], ledgerMagic[:]):
		return l, fmt.Errorf("magic: found %q, expected %q", p[:offVersion], ledgerMagic[:])
	}
	if found, want := le.Uint32(p[offChecksum:]), crc32.Checksum(p[:offChecksum], castagnoli); found != want {
		return l, fmt.Errorf("checksum: found %#08x, its content has %#08x", found, want)
	}
	if v := le.Uint32(p[offVersion:]); v != LedgerVersion {
		return l, fmt.Errorf("it has version %d, this program knows %d: %w", v, LedgerVersion, errNewerLedger)
	}
	node, rest, _ := bytes.Cut(p[offLedgerNode:offLedgerRest], []byte{0})
	l = ledger{cluster: meta.ID(p[offLedgerCluster:offLedgerVolume]), volume: meta.ID(p[offLedgerVolume:offLedgerLast]),
		node: string(node), last: le.Uint64(p[offLedgerLast:])}
	if !zero(rest) || !zero(p[offVersion+4:offLedgerCluster]) || !zero(p[offLedgerRest:offChecksum]) {
		return ledger{}, errors.New("no program of this version writes that")
	}
	return l, nil
}

// readLedger takes up what was noted. Nothing about it keeps a replica from being opened: when it cannot be read, numbers go on
// from the clock, which is far beyond any count.
func (s *Shelf) readLedger() {
	own := ledger{cluster: s.cfg.Cluster, volume: s.cfg.Volume, node: s.cfg.Node}
	s.ledger = own
	p, err := s.cfg.Room.Ledger()
	if errors.Is(err, ErrNone) {
		return
	}
	var found ledger
	if err == nil {
		found, err = decodeLedger(p)
	}
	if same := found; err == nil {
		if same.last = 0; same != own {
			err = fmt.Errorf("it is of volume %x of cluster %x on %s; this one is volume %x of cluster %x on %s",
				found.volume, found.cluster, found.node, own.volume, own.cluster, own.node)
		}
	}
	if err == nil {
		s.ledger = found
		return
	}
	if errors.Is(err, errNewerLedger) {
		s.newer = err
	}
	s.ledger.last = uint64(time.Now().Unix())
	s.unnoted(fmt.Errorf("read: %w", err))
}

func (s *Shelf) unnoted(err error) {
	if s.cfg.Unnoted != nil {
		s.cfg.Unnoted(fmt.Errorf("ledger of the rescue images: %w", err))
	}
}

// note makes a ledger durable. When it fails, the one or the other is.
func (s *Shelf) note(l ledger) error {
	if s.newer != nil {
		return fmt.Errorf("ledger of the rescue images: %w", s.newer)
	}
	if err := s.cfg.Room.SetLedger(l.encode()); err != nil {
		return fmt.Errorf("write the ledger of the rescue images: %w", noRoom(err))
	}
	s.ledger = l
	return nil
}

// number is one that no image of the replica ever had. It is that of the image that is begun next, however often that is tried.
func (s *Shelf) number() (uint64, error) {
	if !s.spare {
		next := s.ledger
		next.last++
		if err := s.note(next); err != nil {
			return 0, err
		}
		s.spare = true
	}
	return s.ledger.last, nil
}

// name is an id that was never taken: short, for people have to type it. One that lies there all the same is passed over.
func (s *Shelf) name(epoch uint64) (string, error) {
	for range 2 * MaxImages {
		n, err := s.number()
		if err != nil {
			return "", err
		}
		id := fmt.Sprintf("%s-e%d-%d", s.cfg.Node, epoch, n)
		s.mu.Lock()
		taken := s.findLocked(id) != nil
		s.mu.Unlock()
		if !taken {
			if _, err := s.cfg.Room.Label(id); errors.Is(err, ErrNone) {
				return id, nil
			}
		}
		s.spare = false
	}
	return "", errors.New("no name is free for a rescue image: move what is no image out of the directory of the images")
}

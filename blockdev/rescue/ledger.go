package rescue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"hacluster/blockdev/meta"
)

// The ledger outlives the images of a replica: which numbers they got, so that no name is given twice, also not after what had
// it was deleted, and since when all that the replica had of its own is in one, so that a further resync of the same hold makes
// no further one. Magic, version and checksum are at the same places in every version; what is between the fields and the
// checksum is zero. In this order on stable storage:
//
//	ledger: number -> image made         a crash in between leaves out a number
//	superblock: whole -> ledger: kept    a crash in between leaves an image without a label, which is closed at the next start
//	-> label: closed                     from here on the ledger alone says it
const (
	ledgerSize = 4096
	// LedgerVersion is the format that this program writes, and the newest that it reads.
	LedgerVersion = 1

	offLedgerCluster    = 16 // 16
	offLedgerVolume     = 32 // 16
	offLedgerLast       = 48 // 8
	offLedgerKept       = 56 // 8
	offLedgerNode       = 64 // meta.MaxNode, padded with zeroes
	offLedgerAttachment = offLedgerNode + meta.MaxNode
	offLedgerRest       = offLedgerAttachment + meta.MaxAttachment // likewise
)

// unknownLast is about where numbers go on when nobody knows how many there were.
const unknownLast = 1 << 31

var (
	ledgerMagic = [8]byte{'h', 'a', 'c', 'l', 'l', 'e', 'd', 'g'}
	// errNewerLedger: what it says is not known, and nothing is written over it.
	errNewerLedger = errors.New("install the newer program again; nothing was written")
)

type ledger struct {
	cluster, volume meta.ID
	node            string
	last            uint64 // the greatest number that a rescue image of the replica ever got
	// kept is the newest epoch in which a resync began whose image is closed: what the replica had of its own then is in that,
	// and what it has since came from a primary; 0: there was none. It counts for the backing of attachment.
	kept       uint64
	attachment string
}

func (l *ledger) encode() []byte {
	p := make([]byte, ledgerSize)
	le := binary.LittleEndian
	copy(p[offMagic:], ledgerMagic[:])
	le.PutUint32(p[offVersion:], LedgerVersion)
	copy(p[offLedgerCluster:], l.cluster[:])
	copy(p[offLedgerVolume:], l.volume[:])
	le.PutUint64(p[offLedgerLast:], l.last)
	le.PutUint64(p[offLedgerKept:], l.kept)
	copy(p[offLedgerNode:offLedgerAttachment], l.node)
	copy(p[offLedgerAttachment:offLedgerRest], l.attachment)
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
	node, behind, _ := bytes.Cut(p[offLedgerNode:offLedgerAttachment], []byte{0})
	attachment, rest, _ := bytes.Cut(p[offLedgerAttachment:offLedgerRest], []byte{0})
	l = ledger{cluster: meta.ID(p[offLedgerCluster:offLedgerVolume]), volume: meta.ID(p[offLedgerVolume:offLedgerLast]),
		node: string(node), attachment: string(attachment), last: le.Uint64(p[offLedgerLast:]), kept: le.Uint64(p[offLedgerKept:])}
	if !zero(behind) || !zero(rest) || !zero(p[offVersion+4:offLedgerCluster]) || !zero(p[offLedgerRest:offChecksum]) {
		return ledger{}, errors.New("no program of this version writes that")
	}
	return l, nil
}

// readLedger takes up what was noted. Nothing about it keeps a replica from being opened: when it cannot be read, numbers go on
// from a random one that is far beyond any count, and nothing counts as kept.
func (s *Shelf) readLedger() {
	s.ledger = ledger{cluster: s.cfg.Cluster, volume: s.cfg.Volume, node: s.cfg.Node, attachment: s.cfg.Attachment}
	p, err := s.cfg.Room.Ledger()
	if errors.Is(err, ErrNone) {
		return
	}
	var found ledger
	if err == nil {
		found, err = decodeLedger(p)
	}
	if err == nil {
		err = s.adopt(found)
	}
	if err == nil {
		return
	}
	if errors.Is(err, errNewerLedger) {
		s.newer = err
	}
	s.ledger.last = unknownLast + rand.Uint64N(unknownLast)
	s.unnoted(fmt.Errorf("read: %w", err))
}

func (s *Shelf) adopt(found ledger) error {
	l := &s.ledger
	if found.cluster != l.cluster || found.volume != l.volume || found.node != l.node {
		return fmt.Errorf("it is of volume %x of cluster %x on %s; this one is volume %x of cluster %x on %s",
			found.volume, found.cluster, found.node, l.volume, l.cluster, l.node)
	}
	l.last = found.last
	if _, same := meta.SameBacking(found.attachment, l.attachment); same && found.kept <= s.cfg.Epoch { // else it is of the replica before
		l.kept = found.kept
	}
	return nil
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger = l
	return nil
}

// Kept is the newest epoch in which a resync was begun whose image was closed, whether that is still there or not: what the
// replica had of its own then is no more on it, for it was in the image when the resync ended. 0: there was none.
func (s *Shelf) Kept() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.kept
}

// keeps notes that all that the replica had is in an image that is being closed. Unnoted, the next resync makes another one.
func (s *Shelf) keeps(began uint64) {
	l := s.ledger
	if l.kept >= began {
		return
	}
	l.kept = began
	if err := s.note(l); err != nil {
		s.unnoted(err)
	}
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

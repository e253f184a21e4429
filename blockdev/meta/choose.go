package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// choice is what the two copies say together.
type choice struct {
	sb *Superblock
	// damage says what is wrong with the copy that was not chosen; nil when it is the superblock's predecessor.
	damage error
}

// choose finds the superblock in the content of a file, which may be cut short.
//
//	newer version in any copy  refused: writing here could destroy what the newer program keeps
//	both valid                 the higher generation
//	one valid                  that one; the other is damaged
//	none, nothing but zeroes   no superblock
//	none                       damaged
func choose(content []byte) (choice, error) {
	var raw [2][]byte
	var sbs [2]*Superblock
	var errs [2]error
	for i := range raw {
		raw[i] = make([]byte, copySize)
		if from := i * copySize; from < len(content) {
			copy(raw[i], content[from:])
		}
		sbs[i], errs[i] = decodeAt(raw[i], uint64(i))
	}
	for i, err := range errs {
		if errors.Is(err, ErrVersion) {
			return choice{}, fmt.Errorf("copy %d: %w", i, err)
		}
	}
	switch {
	case errs[0] == nil && errs[1] == nil:
		return newer(sbs), nil
	case errs[0] == nil:
		return choice{sbs[0], fmt.Errorf("copy 1: %w", explain(errs[1], raw[1], raw[0]))}, nil
	case errs[1] == nil:
		return choice{sbs[1], fmt.Errorf("copy 0: %w", explain(errs[0], raw[0], raw[1]))}, nil
	case allZero(content):
		return choice{}, ErrNoSuperblock
	}
	return choice{}, fmt.Errorf("%w: copy 0: %w; copy 1: %w: restore the metadata, or remove the replica and add it anew",
		ErrCorrupt, errs[0], errs[1])
}

// decodeAt decodes copy i, which holds every other generation.
func decodeAt(p []byte, i uint64) (*Superblock, error) {
	if allZero(p) {
		return nil, errors.New("found nothing but zeroes")
	}
	sb, err := decode(p)
	if err == nil && sb.Generation%2 != i {
		return nil, fmt.Errorf("generation: found %d, which does not belong in copy %d", sb.Generation, i)
	}
	return sb, err
}

// newer chooses between two valid copies. They are successors, and of one replica.
func newer(sbs [2]*Superblock) choice {
	new, old, oldCopy := sbs[0], sbs[1], 1
	if sbs[1].Generation > sbs[0].Generation {
		new, old, oldCopy = sbs[1], sbs[0], 0
	}
	if err := sameIdentity(old, new); err != nil {
		return choice{new, fmt.Errorf("copy %d: %w", oldCopy, err)}
	}
	if old.Generation+1 != new.Generation {
		return choice{new, fmt.Errorf("copy %d: generation: found %d, expected %d: a write to it was lost", oldCopy, old.Generation, new.Generation-1)}
	}
	return choice{sb: new}
}

// explain adds in which fields a damaged copy differs from the good one. The generations of a pair always differ, by
// one; the checksums always do.
func explain(err error, bad, good []byte) error {
	if allZero(bad) {
		return err
	}
	var names []string
	for _, f := range fields {
		if f.name != "checksum" && string(bad[f.from:f.to]) != string(good[f.from:f.to]) && !(f.name == "generation" && neighbours(bad, good)) {
			names = append(names, f.name)
		}
	}
	if len(names) == 0 {
		return err
	}
	return fmt.Errorf("%w; it differs from the good copy in: %s", err, strings.Join(names, ", "))
}

func neighbours(a, b []byte) bool {
	x, y := binary.LittleEndian.Uint64(a[offGeneration:]), binary.LittleEndian.Uint64(b[offGeneration:])
	return x == y+1 || y == x+1
}

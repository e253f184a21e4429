package marks

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A cell is one sector. It has no counter: one that did not change is written as it was, so that a torn write of its
// page does it no harm.
const (
	cellSize    = 512
	cellRegions = 248
	pageSize    = 4096
	pageCells   = pageSize / cellSize
	pageRegions = pageCells * cellRegions

	cellCRC   = 0  // 4, of all that follows
	cellIndex = 4  // 4, so that a misplaced one is seen
	cellTag   = 8  // 8, of the file: so is one of another file, or of an older life of this one
	cellMasks = 16 // 2 for each region
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealCell completes a cell whose masks are in place.
func sealCell(p []byte, index uint32, tag uint64) {
	binary.LittleEndian.PutUint32(p[cellIndex:], index)
	binary.LittleEndian.PutUint64(p[cellTag:], tag)
	binary.LittleEndian.PutUint32(p[cellCRC:], crc32.Checksum(p[cellIndex:cellSize], castagnoli))
}

// checkCell says what is wrong with a cell.
func checkCell(p []byte, index uint32, tag uint64) error {
	le := binary.LittleEndian
	if found, want := le.Uint32(p[cellCRC:]), crc32.Checksum(p[cellIndex:cellSize], castagnoli); found != want {
		return fmt.Errorf("checksum: found %#08x, its content has %#08x", found, want)
	}
	if found := le.Uint32(p[cellIndex:]); found != index {
		return fmt.Errorf("it is cell %d", found)
	}
	if found := le.Uint64(p[cellTag:]); found != tag {
		return fmt.Errorf("it belongs to the file %#x, this one is %#x", found, tag)
	}
	return nil
}

func mask(p []byte, i int) Slots { return Slots(binary.LittleEndian.Uint16(p[cellMasks+2*i:])) }

func putMask(p []byte, i int, s Slots) {
	binary.LittleEndian.PutUint16(p[cellMasks+2*i:], uint16(s))
}

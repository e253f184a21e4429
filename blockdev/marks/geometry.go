package marks

// The size of a region is chosen from that of the volume: small enough that a crash leaves little to compare, large
// enough that the table stays small and a busy volume soon has all its hot regions marked.
const (
	minRegion  = 4 << 20
	maxRegion  = 64 << 20
	manyRegion = 1 << 18 // regions are made larger rather than more than this many, up to maxRegion

	// MaxVolume is the largest volume that marks are kept for: 1 PiB, a table of 32 MiB.
	MaxVolume = 1 << 50
)

// regionSize is 4 MiB up to a volume of 1 TiB and grows with it to 64 MiB at 16 TiB.
func regionSize(volume int64) int64 {
	size := int64(minRegion)
	for size < maxRegion && volume > size*manyRegion {
		size *= 2
	}
	return size
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

// pages is how many pages of cells n regions take.
func pages(n int64) int64 { return ceil(n, pageRegions) }

// fileSize is the length of the file of a volume.
func fileSize(volume int64) int64 {
	return tableAt + pages(ceil(volume, regionSize(volume)))*pageSize
}

package cluster

import "fmt"

// A size belongs to an epoch: it is committed as the next one (Configure), and comes into force with a promotion. Each that comes
// into force has a number, one more than that before: a replica that has another size tells by it which of the two is newer.

// mayResize says why a volume cannot get the size; empty: it can.
func mayResize(v *Volume, r ResizeVolume) string {
	switch {
	case r.Epoch != v.Epoch || r.Version != v.Version:
		return fmt.Sprintf("decided on epoch %d, version %d of volume %q, it has epoch %d, version %d", r.Epoch, r.Version, r.Name, v.Epoch, v.Version)
	case v.IsGroup():
		return fmt.Sprintf("%q is a consistency group, whose volumes keep their sizes", r.Name)
	case r.Number == 0 && r.Size <= max(v.Size, v.Next):
		return fmt.Sprintf("volume %q has %d bytes and does not shrink to %d", r.Name, max(v.Size, v.Next), r.Size)
	case r.Number > 0 && r.Number != v.Resized+1:
		return fmt.Sprintf("size %d of volume %q was decided on, it has size %d", r.Number, r.Name, v.Resized)
	case r.Size <= 0 || r.Size == v.NextSize():
		return fmt.Sprintf("volume %q has %d bytes, or is to have them: there is nothing to change to %d", r.Name, v.NextSize(), r.Size)
	case r.Size < v.Size && r.Loses != v.Size-r.Size:
		return fmt.Sprintf("volume %q loses %d bytes when it has %d, and consent was given to the loss of %d", r.Name, v.Size-r.Size, r.Size, r.Loses)
	}
	return ""
}

// SizeAge is how a size that a replica has stored stands to that of its volume's record.
type SizeAge int

// The ages.
const (
	SizeSame     SizeAge = iota
	SizeOlder            // the volume was resized since
	SizeNewer            // the record is of an older log
	SizeConflict         // of one number there are two sizes
)

// AgeOf compares a size and its number, as a replica has stored them, with the record.
func (v *Volume) AgeOf(size int64, number uint64) SizeAge {
	switch {
	case number < v.Resized:
		return SizeOlder
	case number > v.Resized:
		return SizeNewer
	case size == v.Size:
		return SizeSame
	case number > 0:
		return SizeConflict
	case size < v.Size: // sizes without a number only grow
		return SizeOlder
	}
	return SizeNewer
}

// NextSize is the size that the volume has when all that is decided is in force.
func (v *Volume) NextSize() int64 {
	if v.Next != 0 {
		return v.Next
	}
	return v.Size
}

// Cleared is how far a replica has to read as zeroes behind the volume's end before the volume has size bytes: there may be what
// an earlier, larger size had. The volume's own size when nothing has to.
func (v *Volume) Cleared(size int64) int64 {
	return max(v.Size, min(size, v.OldEnd))
}

// resizeVolume notes the size. It is in force from the next promotion on at which every replica is a member (resizeNow).
func (s *State) resizeVolume(c Command, r ResizeVolume) {
	v := s.Volumes[r.Name].Clone()
	v.Next, v.NextResized = r.Size, r.Number
	v.Version++ // every applied command does (R7)
	const when = "from the next promotion on at which every replica is a member"
	switch {
	case r.Size == v.Size:
		v.Next, v.NextResized = 0, 0
		s.event(c, "volume is not resized", &v, "", fmt.Sprintf("volume %q keeps its %d bytes: the change of its size was taken back before it was in force", v.Name, v.Size))
	case r.Size < v.Size:
		s.event(c, "volume shrinks", &v, "", fmt.Sprintf("volume %q has %d bytes, and %d %s: a person accepted the loss of the last %d", v.Name, v.Size, v.Next, when, r.Loses))
	default:
		s.event(c, "volume grows", &v, "", fmt.Sprintf("volume %q has %d bytes, and %d %s", v.Name, v.Size, v.Next, when))
	}
	s.Volumes[r.Name] = v
}

// resizeNow is for a promotion, before it changes the set: within an epoch all replicas, streams and clients have one size, and
// no primary has answered in the next epoch yet. The size waits for a promotion at which every replica is a member: one in the
// middle of a resync has a way back, to a state of the old size (R18). A promotion by force may be by that way, and what others
// held is kept aside from then on (R19), of the old size too: it gives the change up.
func (s *State) resizeNow(c Command, v *Volume) {
	switch {
	case v.Next == 0:
	case c.Promote.Basis == BasisForced:
		what := "volume does not grow"
		if v.Next < v.Size {
			what = "volume does not shrink"
		}
		s.event(c, what, v, "", fmt.Sprintf("volume %q keeps its %d bytes, for it was promoted by force before the %d were in force: resize it again when every replica is in sync", v.Name, v.Size, v.Next))
		v.Next, v.NextResized = 0, 0
	case len(v.Members) == len(v.Replicas):
		if v.OldEnd = max(v.OldEnd, v.Size); v.OldEnd <= v.Next {
			v.OldEnd = 0
		}
		v.Size, v.Resized = v.Next, max(v.Resized, v.NextResized)
		v.Next, v.NextResized = 0, 0
	}
}

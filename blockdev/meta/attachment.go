package meta

import "strings"

// SameBacking is for what else is bound to a backing beside the superblock: whether two attachments can be of one, and
// if not, why.
func SameBacking(stored, now string) (why string, same bool) { return sameBacking(stored, now) }

// Unproven reports whether two attachments of different boots, or that differ, need not be of one backing although
// nothing speaks against it, and why. What is believed about a backing without looking at its content asks for proof: a
// block device has none, for another disk may lie under its path and number, nor has a file of unknown birth, for a new
// filesystem gives the same inodes out again.
func Unproven(stored, now string) (why string, unproven bool) {
	a, b := strings.Split(stored, ":"), strings.Split(now, ":")
	switch {
	case a[0] == "blk" || b[0] == "blk":
		return "it lies on a block device, and another disk may have been put under the same path", true
	case a[0] != "file" && b[0] != "file":
		return "", false
	case len(a) > 2 && len(b) > 2 && a[2] == b[2] && strings.Contains(a[2], "."):
		return "", false
	}
	return "it lies in a file of which it is not known when it was made", true
}

// sameBacking reports whether the two attachments can be of one backing, and if not, why. The forms are those of
// filedev: "blk:MAJOR:MINOR:SEQ" and "file:DEV:INODE.BIRTH:SEQ".
//
// Numbers of devices and attachments change with a restart and prove nothing. A file is told by its inode and birth: the
// same path with another file is another backing, which a copy or a restored backup is too. Of block devices the path
// must do.
func sameBacking(stored, now string) (why string, same bool) {
	if stored == "" || now == "" {
		return "", true
	}
	a, b := strings.Split(stored, ":"), strings.Split(now, ":")
	if a[0] != b[0] {
		return "this is another kind of device under the same path", false
	}
	if a[0] == "file" && len(a) > 2 && len(b) > 2 && !sameFile(a[2], b[2]) {
		return "this is another file under the same path", false
	}
	return "", true
}

// sameFile compares INODE.BIRTH; a birth that one side could not tell is not compared.
func sameFile(a, b string) bool {
	inodeA, birthA, knownA := strings.Cut(a, ".")
	inodeB, birthB, knownB := strings.Cut(b, ".")
	return inodeA == inodeB && (!knownA || !knownB || birthA == birthB)
}
